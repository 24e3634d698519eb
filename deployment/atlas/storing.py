"""Models as JSON and back: the schema of the catalogue (`models.schema.json`) and of the user's own file.

A field that has its default is left out, so that a file of a hundred models stays small and quick to read.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from deployment.model import LayerGroup, Model, Quality
from phases.errors import InputError

VERSION = 1
_INTEGER, _NUMBER = (int,), (int, float)
_NONE = type(None)
_KINDS: dict[object, tuple[type, ...]] = {
    int: _INTEGER, float: _NUMBER, int | None: (*_INTEGER, _NONE), float | None: (*_NUMBER, _NONE), bool: (bool,),
}  # fmt: skip
"""What JSON holds for each type of a field; what is not here is text or made of such objects."""
_DEFAULTS: dict[type, dict[str, Any]] = {
    kind: {f.name: f.default for f in fields(kind) if f.default is not MISSING} for kind in (LayerGroup, Model, Quality)
}
_TYPES: dict[type, dict[str, tuple[type, ...]]] = {
    kind: {f.name: _KINDS.get(f.type, (str, list, tuple)) for f in fields(kind)} for kind in _DEFAULTS
}


def as_json(model: Model) -> dict[str, Any]:
    """The model as plain JSON data."""
    data = _told(model)
    data["layers"] = [_told(group) for group in model.layers]
    for key in ("tasks", "quality"):
        if key in data:
            data[key] = [_told(one) if isinstance(one, Quality) else one for one in data[key]]
    return data


def from_json(data: Mapping[str, Any], where: str = "the catalogue") -> Model:
    """The model that `as_json` wrote. Raises InputError when the data is of another form."""
    try:
        given = dict(data)
        given["layers"] = tuple(LayerGroup(**_sound(LayerGroup, group)) for group in given["layers"])
        given["tasks"] = tuple(given.get("tasks", ()))
        given["quality"] = tuple(Quality(**_sound(Quality, one)) for one in given.get("quality", ()))
        return Model(**_sound(Model, given))
    except (KeyError, TypeError, ValueError) as error:
        name = data.get("name", "a model") if isinstance(data, Mapping) else data
        raise InputError(f"{where}: {name!r} is not in the form of version {VERSION}: {error}") from None


def _sound(kind: type, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data as they are. Raises TypeError or ValueError for a value that no such field has."""
    types = _TYPES[kind]
    for key, value in data.items():
        if key in types and not isinstance(value, types[key]):
            raise TypeError(f"{key} = {value!r}")
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise ValueError(f"{key} = {value!r}")
    return data


def _told(value: Model | LayerGroup | Quality) -> dict[str, Any]:
    """What differs from the defaults."""
    defaults = _DEFAULTS[type(value)]
    told = {f.name: getattr(value, f.name) for f in fields(value)}
    return {key: one for key, one in told.items() if key not in defaults or one != defaults[key]}


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a file. Raises InputError when it is not there, broken, or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply for a file of settings") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: broken JSON in line {error.lineno}, column {error.colno}: {error.msg}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, not an object")
    return content
