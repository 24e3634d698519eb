"""Phase 5, forge training: the model trains on in ten stages, and beside it one that is merely trained on.

    forge phase forge --input runs/a/bitnet --out runs/a/forge

Three stages adapt, three hold the tasks' success and the Lyapunov exponent by a closed loop, two dream, two learn to
predict the model's own states while the rate falls; what is on by default is what earned it (docs/log.md). Stages,
ingredients and their settings are data in the config. A ternary parent trains through its lattice and its successor is
packed again. Siblings: *packed*, and the control *plain*: the same optimizer, rows and schedule without any ingredient,
for as many steps more as the ingredients' own cost would have paid for. Cost: about three minutes on two cores at the
default, the control included.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from phases.bitnet.storage import is_ternary, refuse_packed
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_family
from phases.dataset import Dataset
from phases.errors import CheckpointError, ConfigError
from phases.forge.body import Body
from phases.forge.config import ForgeTrainingConfig
from phases.forge.history import HISTORY, History, read_history
from phases.forge.knowledge import self_knowledge
from phases.forge.rows import open_mixture
from phases.forge.stages import TRAIN_COST, StagedTraining, rate_at
from phases.packed.file import pack_checkpoint
from phases.phase import MetricsCallback, Phase, Pool, ignore_metrics, is_finished, serial_pool, work_directory
from phases.training.loop import Span, train
from phases.training.objective import LanguageModelling
from phases.training.processes import several

FORGE, PLAIN, PACKED = "forge", "plain", "packed"


def run(
    parents: Sequence[Checkpoint],
    config: ForgeTrainingConfig,
    out: Path,
    *,
    data: Dataset,
    metrics: MetricsCallback = ignore_metrics,
    pool: Pool = serial_pool,
) -> Checkpoint:
    """Train both models and pack the first; what is finished is kept in the work directory and skipped on a rerun.

    Raises `CheckpointError` for a parent that cannot be trained here, `ConfigError` for several processes.
    """
    if len(parents) != 1:
        raise CheckpointError(f"forge: {len(parents)} inputs given; give one checkpoint with --input")
    if several():
        raise ConfigError("forge: its loops and dreams are those of one process; run this phase without a launcher")
    parent = parents[0]
    refuse_packed(parent, "forge")
    work = work_directory(out, PHASE.key(parents, config, data))
    if not is_finished(work / FORGE):
        _make_forged(parent, config, work, data, metrics)
    if not is_finished(work / PLAIN):
        _make_plain(parent, config, work, data, metrics)
    siblings = {PLAIN: work / PLAIN}
    if is_ternary(parent.path):
        if not is_finished(work / PACKED):
            pack_checkpoint(open_checkpoint(work / FORGE), work / PACKED, config.layout)
        siblings[PACKED] = work / PACKED
    result = save_family(out, work / FORGE, siblings)
    shutil.rmtree(work)
    return result


def _make_forged(
    parent: Checkpoint, config: ForgeTrainingConfig, work: Path, data: Dataset, metrics: MetricsCallback
) -> None:
    folder = work / f"{FORGE}.state"
    folder.mkdir(exist_ok=True)
    training = StagedTraining(parent, config, data, folder, metrics)
    history = training.run()
    head, known = training.objective.head, history.up_to_best
    # A head that learnt nothing on the way to this model would be measured as if it had.
    learnt = [stage.self_model and done.steps > 0 for stage, done in zip(config.stages, known, strict=False)]
    if head is not None and any(learnt):
        dreamt = any(stage.dreams and stage.dreams.kept and not stage.taken_back for stage in known)
        found = self_knowledge(training.body, head, config, data, dreamt)
        history = history.model_copy(update={"self_knowledge": found})
    manifest = _manifest(FORGE, parent, config, data, history.tokens, history.cost)
    text = history.model_dump_json(indent=2) + "\n"
    training.body.save(work / FORGE, manifest, {HISTORY: text})
    shutil.rmtree(folder)


def _make_plain(
    parent: Checkpoint, config: ForgeTrainingConfig, work: Path, data: Dataset, metrics: MetricsCallback
) -> None:
    """The control: nothing but language modelling, for the cost of all of ours and at least its tokens."""
    folder = work / f"{PLAIN}.state"
    folder.mkdir(exist_ok=True)
    steps = control_steps(config, read_history(work / FORGE), data.block_tokens)
    training = config.training.model_copy(update={"steps": steps})
    body = Body(parent, data)
    span = Span(0, steps, lambda step: rate_at(config, step * config.training.steps / steps))
    done = train(
        LanguageModelling(body.model),
        open_mixture(data, config),
        training,
        folder,
        name=PLAIN,
        seed=config.seed,
        metrics=metrics,
        span=span,
    )
    # Rounded where it is read again: sums in another order round to other scales.
    body.model.cpu()
    manifest = _manifest(PLAIN, parent, config, data, done.tokens, TRAIN_COST * done.tokens)
    body.save(work / PLAIN, manifest, {})
    shutil.rmtree(folder)


def control_steps(config: ForgeTrainingConfig, history: History, block_tokens: int) -> int:
    """Plain steps that cost what all of ours did, stages that were taken back included; never fewer than ours."""
    return max(1, math.ceil(history.cost / (TRAIN_COST * config.training.batch_rows * block_tokens)))


def _manifest(
    name: str, parent: Checkpoint, config: ForgeTrainingConfig, data: Dataset, tokens: int, cost: float
) -> Manifest:
    return Manifest(
        phase="forge" if name == FORGE else f"forge/{name}",
        config=config.model_dump(mode="json"),
        seed=config.seed,
        parents=(parent.digest,),
        data=(data.digest,),
        metrics={"tokens": tokens, "passes": cost},
    )


PHASE = Phase(
    "forge", "further training in stages: closed loop, dreams, self-modelling, each optional", ForgeTrainingConfig, run
)
