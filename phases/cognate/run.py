"""Phase 1, cognate creation: one trunk, then three branches that share its start and its data's seed.

    forge phase cognate --out DIR

The trunk learns the common mix (or is the user's own base model). Branched from it: *reasoning* (verifiable tasks),
*memory* (associative recall), *adaptive* (early exits). Siblings of one trunk stay linearly connected, which is what
lets phase 2 merge them (arXiv 1912.05671). The *control* is the trunk trained on, on the common mix, for as many
tokens as a branch. The checkpoint is the trunk; the four others are its siblings.
Cost: about 3 minutes on two cores at the embedded default.

Under `accelerate launch` every process comes here: all train, the main one writes (`phases.training.processes`).
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from phases.architecture import check_decoder
from phases.checkpoint import (
    Checkpoint,
    Manifest,
    load_model,
    load_tokenizer,
    open_checkpoint,
    save_checkpoint,
    save_family,
)
from phases.cognate.base import check_tuning, merge_adapters, with_adapters
from phases.cognate.config import BRANCHES, CognateConfig
from phases.cognate.layerskip import EarlyExit
from phases.cognate.shape import PRESETS, llama_config
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.phase import MetricsCallback, Phase, Pool, ignore_metrics, is_finished, serial_pool, work_directory
from phases.training.batches import Mixture
from phases.training.loop import Trained, train
from phases.training.objective import LanguageModelling, Objective
from phases.training.processes import on_main

MODELS = ("trunk", *BRANCHES, "control")


def run(
    parents: Sequence[Checkpoint],
    config: CognateConfig,
    out: Path,
    *,
    data: Dataset,
    metrics: MetricsCallback = ignore_metrics,
    pool: Pool = serial_pool,
) -> Checkpoint:
    """Train trunk, branches and control; finished ones are kept in the work directory and skipped on a rerun."""
    check_tuning(config)
    work = on_main(lambda: work_directory(out, PHASE.key(parents, config, data)))
    for name in MODELS:
        if not on_main(partial(is_finished, work / name)):
            _make(name, config, work, data, metrics)
    return on_main(lambda: _assemble(work, out))


def _make(name: str, config: CognateConfig, work: Path, data: Dataset, metrics: MetricsCallback) -> None:
    """Train one model and write its checkpoint to `work/<name>`."""
    base = config.base
    if name == "trunk" and base:
        on_main(lambda: _write(name, config, work, data, *_base(base)))
    else:
        model, done = _trained(name, config, work, data, metrics)
        on_main(lambda: _write(name, config, work, data, model, data.tokenizer, done))


def _write(
    name: str, config: CognateConfig, work: Path, data: Dataset, model: Any, tokenizer: Any, done: Trained | None = None
) -> None:
    manifest = Manifest(
        phase="cognate" if name == "trunk" else f"cognate/{name}",
        config=config.model_dump(mode="json"),
        seed=config.seed,
        parents=() if name == "trunk" else (open_checkpoint(work / "trunk").digest,),
        data=(data.digest,),
        metrics={} if done is None else done.metrics,
    )
    save_checkpoint(work / name, model, tokenizer, manifest)


def _trained(
    name: str, config: CognateConfig, work: Path, data: Dataset, metrics: MetricsCallback
) -> tuple[Any, Trained]:
    trunk = work / "trunk"
    adapted = name != "trunk" and config.base is not None and config.tuning != "full"
    torch.manual_seed(config.seed)  # the start of a fresh trunk and of adapters
    if name == "trunk":
        model = _fresh(config, data)
    else:
        model = with_adapters(str(trunk), config) if adapted else load_model(trunk)
    training = config.trunk if name == "trunk" else config.branch
    mixture = Mixture(data, config.mix(name), config.seed, training.prompt_weight)
    state = work / f"{name}.state"
    on_main(lambda: state.mkdir(exist_ok=True))
    done = train(
        _objective(name, model, config), mixture, training, state, name=name, seed=config.seed, metrics=metrics
    )
    return merge_adapters(model, str(trunk)) if adapted else model, done


def _fresh(config: CognateConfig, data: Dataset) -> Any:
    shape = config.shape or PRESETS[config.preset]
    return LlamaForCausalLM(llama_config(shape, data.vocabulary, data.tokenizer.eos_token_id))


def _base(path: str) -> tuple[Any, Any]:
    """The user's own model and its tokenizer."""
    model = load_model(path)
    if getattr(model, "is_quantized", False):
        raise CheckpointError(
            f"cognate.base={path}: packed or quantised, so it cannot train; give what it was made from"
        )
    check_decoder(model, path)
    return model, load_tokenizer(path)


def _objective(name: str, model: Any, config: CognateConfig) -> Objective:
    # Adapters wrap the model; the objective wants the decoder inside.
    decoder = model.get_base_model() if hasattr(model, "get_base_model") else model
    if name == "adaptive":
        return EarlyExit(decoder, config.layer_skip.dropout, config.layer_skip.exit_scale)
    return LanguageModelling(decoder)


def _assemble(work: Path, out: Path) -> Checkpoint:
    """The trunk with its siblings at `out`; the work directory is gone."""
    result = save_family(out, work / "trunk", {name: work / name for name in MODELS[1:]})
    shutil.rmtree(work)
    return result


PHASE = Phase("cognate", "one trunk, three specialised branches, one control", CognateConfig, run)
