"""The models that can be asked for: those that are shipped and the user's own.

    from deployment.atlas import catalogue
    catalogue.model("Qwen/Qwen3-32B")
    catalogue.select(catalogue.models(), task="code", licence="permissive", max_parameters=40e9)

`models.json` is made by `python -m deployment.atlas.importing`; it is read once, in a few milliseconds.
"""

import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from deployment.atlas import own
from deployment.atlas.storing import from_json
from deployment.model import Model
from phases.errors import InputError

FILE = Path(__file__).with_name("models.json")
PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause")
"""Licences under which anything may be done with a model; `licence="permissive"` selects them."""


def models() -> tuple[Model, ...]:
    """All: one's own come first and take the place of shipped ones of the same name."""
    mine = own.models()
    names = {model.name for model in mine}
    return (*mine, *(model for model in shipped() if model.name not in names))


@cache
def shipped() -> tuple[Model, ...]:
    """Those of the catalogue."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return tuple(from_json(data, str(FILE)) for data in content["models"])


def model(name: str) -> Model:
    """One model, by its name in any case, or by the part after the slash where that is one model's alone.

    Raises InputError with the nearest names.
    """
    everyone = models()
    wanted = name.strip().lower()
    exact = [one for one in everyone if one.name.lower() == wanted]
    found = exact or [one for one in everyone if one.name.lower().rsplit("/", 1)[-1] == wanted]
    if len(found) == 1:
        return found[0]
    raise InputError(_unknown(name, everyone, found))


def select(
    models: Iterable[Model],
    task: str | None = None,
    licence: str | None = None,
    family: str | None = None,
    max_parameters: float | None = None,
    min_context: int | None = None,
) -> tuple[Model, ...]:
    """Those to which everything that is given applies.

    `licence` may be "permissive"; `max_parameters` counts all parameters, routed experts in full. Raises InputError
    for a task, licence or family that no model has.
    """
    kept = tuple(models)
    _known("task", task, {one for each in kept for one in each.tasks})
    _known("licence", licence, {each.licence for each in kept} | {"permissive"})
    _known("family", family, {each.family for each in kept})
    licences = PERMISSIVE if licence == "permissive" else (licence,)
    return tuple(
        one
        for one in kept
        if (task is None or task in one.tasks)
        and (licence is None or one.licence in licences)
        and (family is None or one.family == family)
        and (max_parameters is None or one.parameters <= max_parameters)
        and (min_context is None or one.context >= min_context)
    )


def _known(what: str, value: str | None, known: set[str]) -> None:
    if value is not None and known and value not in known:
        raise InputError(f"{what} {value!r}: no model has it; there are {', '.join(sorted(known))}")


def _unknown(name: str, everyone: Sequence[Model], found: Sequence[Model]) -> str:
    if found:
        return f"model {name!r}: several are called so: {', '.join(one.name for one in found)}; give one in full"
    lower = {one.name.lower(): one.name for one in everyone}
    lower |= {key.rsplit("/", 1)[-1]: full for key, full in lower.items()}
    near = list(dict.fromkeys(lower[match] for match in get_close_matches(name.strip().lower(), lower, 6, 0.5)))[:3]
    hint = f"near it: {', '.join(near)}; " if near else ""
    return f"model {name!r} is not in the atlas; {hint}`forge models` lists all, `forge models add` takes a config.json"
