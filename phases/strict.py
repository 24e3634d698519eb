"""`StrictModel`: the base of every config. Frozen, no unknown keys, field docstrings become the UI's descriptions."""

from typing import Annotated, Any, Self

import pydantic

from phases.errors import ConfigError


def _optional_in_forms(schema: dict[str, Any]) -> None:
    choices = [{"type": schema.pop("type"), "minimum": schema.pop("minimum")}, {"type": "null"}]
    schema.update(anyOf=choices, default=None, title="Seed")


SectionSeed = Annotated[int, pydantic.Field(ge=0, json_schema_extra=_optional_in_forms)]
"""A section's own seed. A form leaves it empty, and a run's config then fills in the run's seed."""


class StrictModel(pydantic.BaseModel):
    """A frozen pydantic model that refuses unknown keys."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

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
    return f"{where}: '{key}' = {error['input']!r}: {error['msg']}"


def _fields_at(model: type[pydantic.BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The allowed keys of the model that `path` leads to; empty when the path leaves the models."""
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, pydantic.BaseModel)), None)
    return list(getattr(current, "model_fields", {}))
