"""The phase's config: how long to search, over which methods, on how much validation data."""

from pydantic import Field

from phases.evomerge.dare import Rescale
from phases.evomerge.genome import METHODS, Method
from phases.phase import PhaseConfig


class EvomergeConfig(PhaseConfig):
    """How long to search, over which methods, on how much validation data."""

    population: int = Field(8, ge=4, le=1024)
    """Candidates a generation."""
    generations: int = Field(5, ge=1, le=10_000)
    """Generations a search, the one with the baselines counted."""
    searches: int = Field(3, ge=1, le=100)
    """Independent searches, with the seeds seed, seed + 1, …"""
    methods: tuple[Method, ...] = Field(METHODS, min_length=1)
    """Merge methods to search over."""
    validation_items: int = Field(64, ge=1)
    """Task items of each speciality that a candidate of a search is scored on."""
    validation_blocks: int = Field(8, ge=1)
    """Text blocks that a candidate of a search is scored on at half depth."""
    finalists: int = Field(3, ge=1)
    """Candidates of each search that are scored again on the larger probe, which decides."""
    final_items: int = Field(384, ge=1)
    """Task items of each speciality in the finals."""
    final_blocks: int = Field(32, ge=1)
    """Text blocks in the finals."""
    patience: int = Field(10, ge=1)
    """Generations without a better candidate after which a search stops."""
    sigma: float = Field(1 / 6, gt=0, le=1)
    """First step size in the unit cube of coordinates."""
    dare_rescale: Rescale = "density"
    """What DARE keeps after dropping: the expectation (the paper) or the L1 norm (mergekit)."""
    dfs_repeats: int = Field(1, ge=1, le=8)
    """How often the layers of all parents are laid out for the data-flow space."""
