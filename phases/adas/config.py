"""The phase's config: how experts are learnt and composed, and how the search goes."""

from typing import Literal

from pydantic import Field

from phases.adas.composition import CompositionConfig
from phases.adas.learning import ExpertsConfig
from phases.adas.search import SearchConfig
from phases.phase import PhaseConfig


class AdasConfig(PhaseConfig):
    """Phase 7: expert vectors, and the search for a design."""

    lessons: int = Field(200, ge=2)
    """Solved training conversations of each domain that experts learn from."""
    library: int = Field(32, ge=0)
    """Of these, so many go along with the agent: examples to show, and what its classifier of questions learns from."""
    experts: ExpertsConfig = ExpertsConfig()
    """Expert vectors: how they are learnt."""
    composition: CompositionConfig = CompositionConfig()
    """How their mixture is found."""
    search: SearchConfig = SearchConfig(population=6, singles=40, rungs=(8, 16), eta=4)
    """How designs are searched for."""
    search_turns: int | None = Field(2, ge=1)
    """Turns that a conversation of the search has at most: they are written one after the other, and cost as much each.
    The finals have all conversations; empty: so does the search."""
    finalists: int = Field(3, ge=1)
    """Best designs of each search that are played once more, also with the experts spared by which they lose."""
    final_units: int = Field(48, ge=1)
    """Conversations of each domain that they are played on."""
    batch: int = Field(64, ge=1)
    """Conversations that are written at the same time."""
    layout: Literal["trits", "2bit"] = "trits"
    """How the packed file of a ternary model holds its codes."""
    on_fail: Literal["stop", "rollback", "retry"] = "rollback"
    """A failed gate: stop the run, roll back to the parent and go on, or retry once with the next seed."""
