"""A technique: one thing that an agent can do differently, as a change of its design.

    design = combine([POOL["vote of 5"], POOL["examples 2"]])

Techniques of one group exclude each other. The pool (`phases.adas.pool`) has a hundred of them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from phases.agent.design import Design
from phases.strict import StrictModel

Need = Literal["thoughts", "experts", "documents", "memory", "python", "library", "tools"]
"""What the agent must have for a technique to change anything."""


class Technique(StrictModel):
    """One technique."""

    name: str
    """What it is called in archives and reports."""
    group: str
    """What it is about; a design has one technique of a group at most."""
    says: str
    """What it changes, in one line."""
    patch: dict[str, dict[str, Any]]
    """The settings of a design that it sets."""
    paper: str = ""
    """arXiv number of the paper, where there is one."""
    needs: tuple[Need, ...] = Field(())

    @field_validator("patch")
    @classmethod
    def _is_a_design(cls, patch: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if Design.model_validate(patch) == Design():
            raise ValueError("a technique that sets every setting to its default changes nothing; give another value")
        return patch


def combine(techniques: Iterable[Technique]) -> Design:
    """The design that all of them make, in their order. Raises `ValueError` for two of one group."""
    values: dict[str, dict[str, Any]] = {}
    groups: dict[str, str] = {}
    for technique in techniques:
        if technique.group in groups:
            raise ValueError(f"'{groups[technique.group]}' and '{technique.name}' exclude each other; take one")
        groups[technique.group] = technique.name
        for part, settings in technique.patch.items():
            values[part] = {**values.get(part, {}), **settings}
    return Design.model_validate(values)


def usable(techniques: Mapping[str, Technique], has: Iterable[Need]) -> dict[str, Technique]:
    """Those that change something for an agent that has so much."""
    there = set(has)
    return {name: technique for name, technique in techniques.items() if there.issuperset(technique.needs)}
