"""Phase 4, BitNet b1.58 (arXiv 2402.17764): ternary weights by quantisation-aware training with the parent as teacher.

    forge phase bitnet --input runs/a/evomerge --out runs/a/bitnet

The checkpoint is a plain model whose linear layers hold exact ternary values, with the latent weights beside them
(`phases.bitnet.storage`). Its siblings: *packed*, the same model at its true size; and two controls on the same rows
for as many steps, *no_teacher* (ternary, from the text alone) and *full_precision* (no lattice at all: what the extra
steps would have brought anyway). Any causal language model whose layers are linear can be the parent; what it brings
along to think with rides along. Cost: about two minutes on two cores at the default.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from phases.architecture import check_head, check_vocabulary
from phases.bitnet.config import BitnetConfig
from phases.bitnet.estimator import Quantised
from phases.bitnet.objective import QuantisationAware
from phases.bitnet.storage import is_ternary, open_latent, refuse_packed, ternary_files
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_checkpoint, save_family
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.packed.file import pack_checkpoint
from phases.phase import MetricsCallback, Phase, Pool, ignore_metrics, is_finished, serial_pool, work_directory
from phases.quiet_star.storage import load_thinker, thinking_files, thinks
from phases.training.batches import Mixture
from phases.training.loop import Trained, train
from phases.training.objective import LanguageModelling, Objective

TERNARY, NO_TEACHER, FULL_PRECISION, PACKED = "ternary", "no_teacher", "full_precision", "packed"
MODELS = (TERNARY, NO_TEACHER, FULL_PRECISION)


def run(
    parents: Sequence[Checkpoint],
    config: BitnetConfig,
    out: Path,
    *,
    data: Dataset,
    metrics: MetricsCallback = ignore_metrics,
    pool: Pool = serial_pool,
) -> Checkpoint:
    """Train the three models and pack the first; finished ones are kept in the work directory and skipped on a rerun.

    Raises `CheckpointError` for a parent whose layers are not linear or whose vocabulary does not hold the data's.
    """
    if len(parents) != 1:
        raise CheckpointError(f"bitnet: {len(parents)} inputs given; give one checkpoint with --input")
    refuse_packed(parents[0], "bitnet")
    work = work_directory(out, PHASE.key(parents, config, data))
    for name in MODELS:
        if not is_finished(work / name):
            _make(name, parents[0], config, work, data, metrics)
    if not is_finished(work / PACKED):
        pack_checkpoint(open_checkpoint(work / TERNARY), work / PACKED, config.layout)
    result = save_family(out, work / TERNARY, {name: work / name for name in (PACKED, *MODELS[1:])})
    shutil.rmtree(work)
    return result


def _make(
    name: str, parent: Checkpoint, config: BitnetConfig, work: Path, data: Dataset, metrics: MetricsCallback
) -> None:
    """Train one model and write its checkpoint to `work/<name>`."""
    model, tokenizer = parent.model(), parent.tokenizer()
    check_head(model, str(parent.path))
    check_vocabulary(model, tokenizer, data, str(parent.path))
    mixture = Mixture(data, config.mix.model_dump(), config.seed, config.training.prompt_weight)
    state = work / f"{name}.state"
    state.mkdir(exist_ok=True)
    objective: Objective
    if name == FULL_PRECISION:
        objective = LanguageModelling(model)
    else:
        latent = open_latent(parent).latent() if is_ternary(parent.path) else {}
        quantised = Quantised(model, config.quantisation, latent)
        teacher = parent.model() if name == TERNARY else None
        objective = QuantisationAware(quantised, 0.0 if latent else config.warmup, config.distillation, teacher)
    done = train(objective, mixture, config.training, state, name=name, seed=config.seed, metrics=metrics)
    model.cpu()
    tensors, texts = thinking_files(*load_thinker(parent.path)) if thinks(parent.path) else ({}, {})
    if name != FULL_PRECISION:
        found = ternary_files(quantised)
        tensors, texts = {**tensors, **found[0]}, {**texts, **found[1]}
        quantised.fold()
    manifest = _manifest(name, parent, config, data, done)
    save_checkpoint(work / name, model, tokenizer, manifest, tensors=tensors, texts=texts)


def _manifest(name: str, parent: Checkpoint, config: BitnetConfig, data: Dataset, done: Trained) -> Manifest:
    return Manifest(
        phase="bitnet" if name == TERNARY else f"bitnet/{name}",
        config=config.model_dump(mode="json"),
        seed=config.seed,
        parents=(parent.digest,),
        data=(data.digest,),
        metrics=done.metrics,
    )


PHASE = Phase("bitnet", "ternary weights by training through the lattice, packed at true size", BitnetConfig, run)
