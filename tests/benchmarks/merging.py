"""Merge candidates a second: built and ready to score in memory, against mergekit writing to disk and reloading.

The same TIES merge of the same three task vectors (trim 50 %, elect, disjoint mean); mergekit runs in this process
with its lazy loader, so that its import time is not charged to it.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge

from phases.checkpoint import load_model
from phases.evomerge.build import build_model
from phases.evomerge.genome import Genome
from phases.evomerge.parents import load_parents
from phases.evomerge.recipe import mergekit_recipe
from tests.benchmarks.pairs import Comparison, compare

CANDIDATES = 10
NAMES = ("trunk", "a", "b", "c")


def run(paths: Sequence[str], pairs: int) -> Comparison:
    """`paths`: trunk and three branches. One candidate to disk against `CANDIDATES` in memory, per candidate."""
    parents = load_parents(tuple(paths), NAMES)
    genome = Genome(method="ties", weights=(1.0, 1.0, 1.0), densities=(0.5, 0.5, 0.5))
    recipe = MergeConfiguration.model_validate(mergekit_recipe(genome, paths))

    def ours() -> None:
        for _ in range(CANDIDATES):
            build_model(genome, parents)

    def mergekit() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run_merge(recipe, folder, MergeOptions(lazy_unpickle=False, quiet=True, copy_tokenizer=False))
            load_model(Path(folder))

    row = compare(
        "merge, TIES of three", "candidates/s", 1, ours, "mergekit to disk", mergekit, target=10.0, pairs=pairs
    )
    # `ours` made CANDIDATES in the time that stands for one.
    low, high = row.ratio_range
    return Comparison(
        **{
            **vars(row),
            "ours": row.ours * CANDIDATES,
            "ratio": row.ratio * CANDIDATES,
            "ratio_range": (low * CANDIDATES, high * CANDIDATES),
        }
    )
