"""`StrictModel`: the base of every config. Frozen, no unknown keys, field docstrings become the UI's descriptions."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import pydantic
from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from phases.errors import ConfigError


def _with_defaults(name: str, referenced: JsonSchemaValue, use: JsonSchemaValue) -> JsonSchemaValue:
    """What the property refers to, with its own defaults; the reference itself when they are the same."""
    known = referenced.get("properties", {})
    own = {key: {**known[key], "default": value} for key, value in use["default"].items() if key in known}
    if all(known[key].get("default") == value["default"] for key, value in own.items()):
        return use
    here = {key: value for key, value in use.items() if key != "$ref"} | {"title": name.replace("_", " ").title()}
    return {**referenced, **here, "properties": {**known, **own}}


def _optional_in_forms(schema: dict[str, Any]) -> None:
    choices = [{"type": schema.pop("type"), "minimum": schema.pop("minimum")}, {"type": "null"}]
    schema.update(anyOf=choices, default=None, title="Seed")


SectionSeed = Annotated[int, pydantic.Field(ge=0, json_schema_extra=_optional_in_forms)]
"""A section's own seed. A form leaves it empty, and a run's config then fills in the run's seed."""


class StrictModel(pydantic.BaseModel):
    """A frozen pydantic model that refuses unknown keys."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema in which every setting has the default that it has *here*.

        `branch: Training = Training(decay=0.8)` is a reference to a schema that says 0.4, and a form that is given
        half of the object fills in that.
        """
        schema = handler(core)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, value in properties.items():
            if "$ref" in value and isinstance(value.get("default"), dict):
                referenced = handler.resolve_ref_schema({"$ref": value["$ref"]})
                properties[name] = _with_defaults(name, referenced, value)
        return schema

    @classmethod
    def parse(cls, data: object, where: str) -> Self:
        """Validate `data`; every mistake becomes one line of a `ConfigError` that starts with `where`."""
        try:
            return cls.model_validate(data)
        except pydantic.ValidationError as error:
            raise ConfigError("; ".join(_explain(where, e, cls) for e in error.errors())) from None


def _explain(where: str, error: Any, model: type[pydantic.BaseModel]) -> str:
    """One mistake in the user's words: the dotted key, what was given, what is allowed."""
    key = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(_fields_at(model, error["loc"][:-1])))
        return f"{where}: unknown key '{key}'" + (f"; allowed here: {allowed}" if allowed else "")
    if error["type"] == "missing":
        return f"{where}: '{key}' is missing"
    given, said = error["input"], error["msg"].removeprefix("Value error, ")
    if error["type"] in ("tuple_type", "list_type"):
        said = f"give a list, e.g. [{given}]" if isinstance(given, str | int | float) else "give a list"
    elif error["type"] in ("model_type", "dict_type"):
        said = "give settings with their values"
    if error["type"] == "value_error" and isinstance(given, Mapping):
        return f"{where}: '{key}': {said}"  # a check of several settings, which says itself what they are
    return f"{where}: '{key}' = {given!r}: {said}"


def _fields_at(model: type[pydantic.BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The allowed keys of the model that `path` leads to; empty when the path leaves the models."""
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, pydantic.BaseModel)), None)
    return list(getattr(current, "model_fields", {}))
