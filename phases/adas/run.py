"""Phase 7, adas: expert vectors for every domain, and a search for how the agent should work (arXiv 2408.08435).

    forge phase adas --input runs/a/baking --out runs/a/adas

First experts are learnt, one for each domain, and the cross-entropy method finds a mixture of them. Then designs are
searched for: techniques of the pool and weights of the experts, by evolution on the validation split, the best of them
played once more; and by random search with as many conversations, the control. Nothing is accepted that has not been
played by the real model with its real tools. The mixture of the winner goes into the weights, its techniques into
`agent.json`. Expert vectors, the archive of every design, solved examples and `adas.json` ride along. Killed anywhere,
it goes on where it stood and ends in the same bits.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from phases.adas.bundle import write_agent
from phases.adas.config import AdasConfig as AdasConfig
from phases.adas.exploring import explore
from phases.adas.report import REPORT
from phases.adas.scoring import close
from phases.bitnet.storage import refuse_packed
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError, ConfigError
from phases.phase import MetricsCallback, Phase, Pool, ignore_metrics, serial_pool, work_directory
from phases.training.processes import several


def run(
    parents: Sequence[Checkpoint],
    config: AdasConfig,
    out: Path,
    *,
    data: Dataset,
    metrics: MetricsCallback = ignore_metrics,
    pool: Pool = serial_pool,
) -> Checkpoint:
    """Learn, compose, search, write the agent at its new design.

    Raises `CheckpointError` for a parent that cannot be trained here, `ConfigError` where there is nothing to learn.
    """
    if len(parents) != 1:
        raise CheckpointError(f"adas: {len(parents)} inputs given; give one checkpoint with --input")
    if several():
        raise ConfigError("adas: its search is that of one process; run this phase without a launcher")
    refuse_packed(parents[0], "adas")
    work = work_directory(out, PHASE.key(parents, config, data))
    try:
        found = explore(parents[0], data, config, work, metrics, pool)
    finally:
        close()
    (work / REPORT).write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    result = write_agent(parents[0], data, config, found, work, out)
    shutil.rmtree(work)
    return result


PHASE = Phase("adas", "expert vectors, and an agent's design found by search", AdasConfig, run)
