"""What if there were twice the users, another GPU, a smaller budget? The same question asked again, side by side.

    forge recommend --use-case chat --what-if traffic.users=2000 --what-if "slo.ttft_p95_ms=150 spot=true"

A change names a setting of the request by its dotted key; several in one alternative are parted by spaces, lists by
commas. What the alternatives have in common is solved once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployment.planning.candidate import Candidate, Recommendation
from deployment.planning.catalogue import catalogue
from deployment.planning.digits import duration, number
from deployment.planning.own_agent import OwnAgent
from deployment.planning.recommend import recommend
from deployment.planning.request import Request
from deployment.planning.sweep import Memory
from phases.errors import InputError

AS_ASKED = "as asked"
PROPERTIES: dict[str, Callable[[Candidate], str]] = {
    "replicas": lambda c: str(c.replicas),
    "rented": lambda c: c.rented,
    "USD a month": lambda c: f"{c.cost_per_month:,.0f}",
    "USD per million output tokens (average load)": lambda c: f"{c.cost_per_million_tokens:,.2f}",
    "TTFT p95": lambda c: duration(c.ttft_p95),
    "TPOT p95": lambda c: duration(c.tpot_p95),
    "E2E p95": lambda c: f"{number(c.e2e_p95)} s",
    "quality": lambda c: f"{c.quality.score:g} {c.quality.benchmark}" if c.quality else "–",
}
"""Rows of the table."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One column of the table."""

    name: str
    recommendation: Recommendation


def what_if(request: Request, changes: str | Sequence[str], agent: OwnAgent | None = None) -> tuple[Alternative, ...]:
    """The request as it is, then with each of `changes` (`key=value`, several parted by spaces); a text is one."""
    memory, each = Memory(), [changes] if isinstance(changes, str) else changes
    asked = [(AS_ASKED, request), *((change, changed(request, change)) for change in each)]
    return tuple(Alternative(name, recommend(one, catalogue(one, agent), memory)) for name, one in asked)


def changed(request: Request, change: str) -> Request:
    """The request with `key=value` set; InputError for a key or value that the request does not take."""
    data = request.model_dump(exclude_unset=True)
    for assignment in change.split():
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise InputError(f"what-if '{assignment}': write KEY=VALUE, e.g. traffic.users=2000 or spot=true")
        put(data, key.split("."), _value(key, text))
    return Request.parse(data, f"what-if '{change}'")


def rows(alternatives: Sequence[Alternative]) -> list[tuple[str, list[str]]]:
    """The table, one row a property with one cell an alternative; a cell that nothing meets says what is nearest."""
    chosen = [one.recommendation.chosen for one in alternatives]
    nearest = [one.recommendation.nearest for one in alternatives]
    closest = [f"nothing fits: {n[0].constraint}" if n else "nothing fits" for n in nearest]
    table = [("system", [c.system if c else closest[i] for i, c in enumerate(chosen)])]
    table += [(name, [show(c) if c else "–" for c in chosen]) for name, show in PROPERTIES.items()]
    table.append(("systems that fit", [str(len(one.recommendation.candidates)) for one in alternatives]))
    return table


def _value(key: str, text: str) -> Any:
    """A value as YAML reads it; commas make a list, and settings that are lists take a single name too."""
    import yaml

    field = Request.model_fields.get(key)
    try:
        if "," in text or (field is not None and "tuple" in str(field.annotation)):
            return [yaml.safe_load(part) for part in text.split(",") if part]
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"what-if '{key}={text}': '{text}' is no value; write a number, a word or A,B,C") from None


def put(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set the dotted key, making what is between."""
    for key in keys[:-1]:
        inner = data.get(key)
        data[key] = dict(inner) if isinstance(inner, Mapping) else {}
        data = data[key]
    data[keys[-1]] = value
