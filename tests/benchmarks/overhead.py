"""What the orchestration costs: the phases inside the flow, with Prefect and MLflow, against the phases called bare.

Both do the same work into fresh folders: data, cognate, evomerge and their judgements, then the report. Starting the
ephemeral server is paid once a process and is reported on its own: it is a cost of `forge run`, not of a phase.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from evaluation.judges import JUDGES
from flows.chain import find_phase
from flows.forge_flow import forge
from flows.parameters import ForgeConfig, load_config
from phases.checkpoint import Checkpoint
from phases.data.prepare import prepare_data
from tests.benchmarks.pairs import Comparison, compare


def bare(config: ForgeConfig) -> None:
    """The chain as plain function calls."""
    with tempfile.TemporaryDirectory() as folder:
        data = prepare_data(config.data, config.cognate.base, Path(folder) / "data")
        parents: tuple[Checkpoint, ...] = ()
        for name in config.chain:
            phase = find_phase(name)
            made = phase.run(parents, config.section(name), Path(folder) / name, data=data)
            JUDGES[name](made, parents, data, config.evaluation)
            parents = (made,)


def in_flow(config: ForgeConfig) -> None:
    """The chain as `forge run` does it."""
    with tempfile.TemporaryDirectory() as folder:
        forge(config.model_copy(update={"out": Path(folder)}))


def run(pairs: int, sets: list[str]) -> tuple[Comparison, float]:
    """The comparison (ratio 0.98 is an overhead of 2 %), and the seconds of the first flow of a process."""
    config: Any = load_config(profile="smoke", sets=sets)
    began = time.perf_counter()
    in_flow(config)
    first = time.perf_counter() - began
    row = compare(
        "flow against bare phases", "chains/hour", 3600, lambda: in_flow(config), "phases called bare",
        lambda: bare(config), target=0.98, pairs=pairs,
    )  # fmt: skip
    return row, first - 3600 / row.ours
