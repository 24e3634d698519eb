"""Phase 3, Quiet-STaR (arXiv 2403.09629): the model learns to think between tokens; two controls at equal budget.

    forge phase quiet_star --input runs/a/evomerge --out runs/a/quiet_star

The checkpoint is the thinking model: plain weights with the mixing head beside them. Its siblings are the controls,
which train on the same rows for as many steps: *pause* (thoughts that are start delimiters only: the computation
without the content) and *plain* (language modelling without thoughts). Any Llama-, Qwen- or Mistral-style checkpoint
can be the parent. Cost: about two minutes on two cores at the default.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from phases.architecture import check_decoder, check_vocabulary
from phases.bitnet.storage import refuse_ternary
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint, save_family
from phases.dataset import Dataset
from phases.errors import CheckpointError, ConfigError
from phases.phase import MetricsCallback, Phase, Pool, ignore_metrics, is_finished, serial_pool, work_directory
from phases.quiet_star.config import QuietStarConfig
from phases.quiet_star.delimiters import add_delimiters
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.objective import QuietStar
from phases.quiet_star.storage import ThinkingFile, thinking_files
from phases.quiet_star.thinker import Thinker
from phases.training.batches import Mixture
from phases.training.loop import Trained, train
from phases.training.objective import LanguageModelling

THOUGHTS, PAUSE, PLAIN = "thoughts", "pause", "plain"
MODELS = (THOUGHTS, PAUSE, PLAIN)


def run(
    parents: Sequence[Checkpoint],
    config: QuietStarConfig,
    out: Path,
    *,
    data: Dataset,
    metrics: MetricsCallback = ignore_metrics,
    pool: Pool = serial_pool,
) -> Checkpoint:
    """Train the three models; finished ones are kept in the work directory and skipped on a rerun.

    Raises `CheckpointError` for a parent that is no such decoder or whose vocabulary does not hold the data's tokens.
    """
    if len(parents) != 1:
        raise CheckpointError(f"quiet_star: {len(parents)} inputs given; give one checkpoint with --input")
    refuse_ternary(parents[0], "quiet_star")
    work = work_directory(out, PHASE.key(parents, config, data))
    for name in MODELS:
        if not is_finished(work / name):
            _make(name, parents[0], config, work, data, metrics)
    result = save_family(out, work / THOUGHTS, {name: work / name for name in MODELS[1:]})
    shutil.rmtree(work)
    return result


def _make(
    name: str, parent: Checkpoint, config: QuietStarConfig, work: Path, data: Dataset, metrics: MetricsCallback
) -> None:
    """Train one model and write its checkpoint to `work/<name>`."""
    thinker, tokenizer = new_thinker(parent, config, data)
    objective = LanguageModelling(thinker.model) if name == PLAIN else QuietStar(thinker, config, name == THOUGHTS)
    if config.checkpointing:
        thinker.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    mixture = Mixture(data, config.mix.model_dump(), config.seed, config.training.prompt_weight)
    state = work / f"{name}.state"
    state.mkdir(exist_ok=True)
    done = train(objective, mixture, config.training, state, name=name, seed=config.seed, metrics=metrics)
    thinker.cpu()
    thoughts = config.thoughts
    settings = ThinkingFile(
        start=thinker.start,
        end=thinker.end,
        tokens=thoughts.tokens,
        temperature=thoughts.temperature,
        pause=name == PAUSE,
    )
    files = ({}, {}) if name == PLAIN else thinking_files(thinker, settings)
    save_checkpoint(
        work / name,
        thinker.model,
        tokenizer,
        _manifest(name, parent, config, data, done),
        tensors=files[0],
        texts=files[1],
    )


def new_thinker(parent: Checkpoint, config: QuietStarConfig, data: Dataset) -> tuple[Thinker, object]:
    """The parent with delimiters and a fresh mixing head, and its tokenizer; the same for every model of the phase.

    Raises `CheckpointError` or `ConfigError` for what does not fit the data.
    """
    model, tokenizer = parent.model(), parent.tokenizer()
    check_decoder(model, str(parent.path))
    check_vocabulary(model, tokenizer, data, str(parent.path))
    if config.thoughts.ahead > data.block_tokens:
        raise ConfigError(
            f"quiet_star.thoughts.ahead={config.thoughts.ahead}: rows of {data.path} have {data.block_tokens} tokens; "
            "lower it, or raise data.block_tokens"
        )
    start, end = add_delimiters(model, tokenizer, config.thoughts.initial)
    torch.manual_seed(config.seed)
    return Thinker(model, MixingHead(int(model.config.hidden_size), config.mixing_start), start, end), tokenizer


def _manifest(name: str, parent: Checkpoint, config: QuietStarConfig, data: Dataset, done: Trained) -> Manifest:
    return Manifest(
        phase="quiet_star" if name == THOUGHTS else f"quiet_star/{name}",
        config=config.model_dump(mode="json"),
        seed=config.seed,
        parents=(parent.digest,),
        data=(data.digest,),
        metrics=done.metrics,
    )


PHASE = Phase("quiet_star", "thoughts between tokens, with plain and pause-token controls", QuietStarConfig, run)
