"""Phase 6, baking: tools, memory and a persona become what the model does without a prompt (arXiv 2409.13697).

    forge phase baking --input runs/a/forge --out runs/a/baking

First the model is *taught* to do as its prompts say: conversations with verifiable answers, whose calls have really
been done, with the tools' signatures or the persona before them. Then each prompt is *baked* in: the prompted model
answers by itself, what came out right is kept, and the model without a prompt learns its distribution (KL), rehearsing
the data all the while. Siblings: *prompted* (the taught model, which still wants its prompts), the control *plain*
(fine-tuned without prompts on the same conversations for as many steps), and *packed*. The agent's documents (an index
of the training text) and `agent.json` ride along. Cost: two minutes on two cores at the default, the control included.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from phases.baking.config import BakingConfig
from phases.baking.kitchen import BAKED, PLAIN, PROMPTED, Kitchen
from phases.bitnet.storage import is_ternary, refuse_packed
from phases.checkpoint import Checkpoint, open_checkpoint, save_family
from phases.dataset import Dataset
from phases.errors import CheckpointError, ConfigError
from phases.packed.file import pack_checkpoint
from phases.phase import MetricsCallback, Phase, Pool, ignore_metrics, is_finished, serial_pool, work_directory
from phases.training.processes import several

PACKED = "packed"


def run(
    parents: Sequence[Checkpoint],
    config: BakingConfig,
    out: Path,
    *,
    data: Dataset,
    metrics: MetricsCallback = ignore_metrics,
    pool: Pool = serial_pool,
) -> Checkpoint:
    """Teach, bake, fine-tune the control, pack; what is finished is kept in the work directory and skipped on a rerun.

    Raises `CheckpointError` for a parent that cannot be trained here, `ConfigError` for tools that do not fit together.
    """
    if len(parents) != 1:
        raise CheckpointError(f"baking: {len(parents)} inputs given; give one checkpoint with --input")
    if several():
        raise ConfigError("baking: its conversations are those of one process; run this phase without a launcher")
    refuse_packed(parents[0], "baking")
    work = work_directory(out, PHASE.key(parents, config, data))
    kitchen = Kitchen(parents[0], config, data, work, metrics)
    if not is_finished(work / BAKED):
        kitchen.bake_all()
    if not is_finished(work / PLAIN):
        kitchen.make_plain()
    siblings = {PLAIN: work / PLAIN, **({PROMPTED: work / PROMPTED} if config.teach else {})}
    if is_ternary(parents[0].path):
        if not is_finished(work / PACKED):
            pack_checkpoint(open_checkpoint(work / BAKED), work / PACKED, config.layout)
        siblings[PACKED] = work / PACKED
    result = save_family(out, work / BAKED, siblings)
    shutil.rmtree(work)
    return result


PHASE = Phase("baking", "tools, memory and a persona, baked in so that no prompt is needed", BakingConfig, run)
