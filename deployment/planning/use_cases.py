"""The use cases that ship (`use_cases.yaml`): lengths and objectives to start from, each with its reason in words."""

import difflib
from functools import cache
from pathlib import Path

import pydantic

from deployment.planning.traffic import Lengths, Slo
from phases.errors import InputError
from phases.strict import StrictModel

FILE = Path(__file__).with_name("use_cases.yaml")


class Reasons(StrictModel):
    """Why each figure is what it is: a fact with its source, or that it is an assumption."""

    ttft: str
    tpot: str
    e2e: str
    lengths: str
    prefix: str


class UseCase(StrictModel):
    """One template: how long its requests are, and what its users will stand."""

    title: str
    task: str
    """What the models are asked to be good at, in the atlas's words."""
    prompt: Lengths
    output: Lengths
    context: int = pydantic.Field(ge=1)
    """Tokens of the longest request that is admitted."""
    prefix_cached: float = pydantic.Field(ge=0, lt=1)
    """Share of the prompt that the prefix cache can be counted on to hold."""
    requests_per_user_hour: float = pydantic.Field(gt=0)
    """Assumption: nobody publishes it; count your own."""
    slo: Slo
    reasons: Reasons
    benchmarks: tuple[str, ...]
    """Scores that tell quality at this use, the most telling first."""


@cache
def use_cases() -> dict[str, UseCase]:
    """All that ship, by name."""
    import yaml  # 20 ms, and only whoever plans needs it

    data = yaml.load(FILE.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {name: UseCase.parse(value, f"{FILE.name}: {name}") for name, value in data.items()}


def use_case(name: str) -> UseCase:
    """One of them; InputError with the nearest names for any other."""
    known = use_cases()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}? All: " if near else "known: "
        raise InputError(f"no use case {name!r}; {hint}{', '.join(known)}")
    return known[name]
