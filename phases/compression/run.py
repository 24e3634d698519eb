"""Phase 8, compression: every weight in the form that loses least at a byte budget, trained in that form; the agent.

    forge phase compression --input runs/a/adas --out runs/a/compression
    forge phase compression --input runs/a/adas --codec vptq --out runs/a/vptq

Ternary codes with an entropy coder, VPTQ with shared codebooks (arXiv 2409.17066), SeedLM (2410.10714) and
hyper-compression (2409.00592) are measured matrix by matrix on the validation split. An allocator divides the budget
among them, codec after codec (`staging`), and the model is trained as it will be stored, the parent its teacher.
Without that training nothing keeps what the parent can do beyond a tenth of its size. A ratio that keeps too little, as
the judge counts it and with a margin for the noise of the validation split, gives way to the next.

The checkpoint is a plain one, the decoded weights. Its siblings: *agent*, the artefact, one small file that decodes
lazily, with all that the agent is beside it; *untrained*, the same allocation as it was before training; and the
control *full_precision*, trained in float32 on the same rows for as many steps. Cost: two minutes on two cores.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from phases.bitnet.storage import refuse_packed
from phases.checkpoint import Checkpoint, save_family
from phases.compression.config import CompressionConfig as CompressionConfig
from phases.compression.press import AGENT, CONTROL, PLAIN, UNTRAINED, Press
from phases.dataset import Dataset
from phases.errors import CheckpointError, ConfigError
from phases.phase import MetricsCallback, Phase, Pool, ignore_metrics, serial_pool, work_directory
from phases.training.processes import several


def run(
    parents: Sequence[Checkpoint],
    config: CompressionConfig,
    out: Path,
    *,
    data: Dataset,
    metrics: MetricsCallback = ignore_metrics,
    pool: Pool = serial_pool,
) -> Checkpoint:
    """Allocate, train, write; what is finished is kept in the work directory and skipped on a rerun.

    Raises `CheckpointError` for a parent whose layers no codec can handle, which it names, and `ConfigError` for a
    budget below what the codecs need.
    """
    if len(parents) != 1:
        raise CheckpointError(f"compression: {len(parents)} inputs given; give one checkpoint with --input")
    if several():
        raise ConfigError("compression: its matrices are those of one process; run this phase without a launcher")
    refuse_packed(parents[0], "compression")
    work = work_directory(out, PHASE.key(parents, config, data))
    Press(parents[0], data, config, work, metrics).make()
    result = save_family(out, work / PLAIN, {name: work / name for name in (AGENT, UNTRAINED, CONTROL)})
    shutil.rmtree(work)
    return result


PHASE = Phase(
    "compression", "every weight in the form that loses least at a byte budget; the agent", CompressionConfig, run
)
