"""A model that learns: opened for training, through its lattice where it is ternary, and written as a checkpoint again.

    learner = open_learner(checkpoint)
    train(objective_on(learner.model), …)
    save_learner(learner, out, manifest)                 # or, with all that a shipped student has: ship_learner

A shipped ternary student has the sibling *packed*, its true size, as the phases' own models do. What makes an agent
comes from the checkpoint whose place it is to take; expert vectors and thoughts stay behind: they are of other weights.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phases.agent.design import Mixture
from phases.agent.library import LIBRARY
from phases.agent.settings import DOCUMENTS, SETTINGS, read_settings
from phases.architecture import check_head
from phases.baking.bundle import add_files
from phases.baking.config import CONVERSATIONS
from phases.bitnet.estimator import Quantised
from phases.bitnet.storage import is_ternary, open_latent, refuse_packed, ternary_files
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint, save_family
from phases.packed.file import pack_checkpoint

PHASE, PACKED = "distillation", "packed"


@dataclass
class Learner:
    """A model in training, its tokenizer, and its lattice where it has one."""

    model: Any
    tokenizer: Any
    quantised: Quantised | None = None

    @property
    def parameters(self) -> int:
        """All of them, embeddings included; tied weights once."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def open_learner(checkpoint: Checkpoint) -> Learner:
    """Open a checkpoint for training. Raises `CheckpointError` for one that cannot be trained here."""
    refuse_packed(checkpoint, PHASE)
    quantised = open_latent(checkpoint) if is_ternary(checkpoint.path) else None
    model = checkpoint.model() if quantised is None else quantised.model
    check_head(model, str(checkpoint.path))
    return Learner(model, checkpoint.tokenizer(), quantised)


def save_learner(learner: Learner, out: Path, manifest: Manifest, texts: Mapping[str, str] | None = None) -> Checkpoint:
    """Write the model, which is a plain one afterwards. Raises `TrainingError` for weights that are not finite."""
    tensors: dict[str, dict[str, Any]] = {}
    files = dict(texts or {})
    if learner.quantised is not None:
        tensors, settings = ternary_files(learner.quantised)
        files |= settings
        learner.quantised.fold()
    return save_checkpoint(out, learner.model.eval(), learner.tokenizer, manifest, tensors=tensors, texts=files)


def ship_learner(
    learner: Learner, out: Path, manifest: Manifest, agent: Checkpoint | None, texts: Mapping[str, str] | None = None
) -> Checkpoint:
    """Write the model with what makes `agent` an agent beside it, and packed too where it is ternary."""
    ternary, work = learner.quantised is not None, out.with_name(f".{out.name}.parts")
    shutil.rmtree(work, ignore_errors=True)
    settings = {} if agent is None else _settings(agent)
    whole = save_learner(learner, work / "weights", manifest, {**(texts or {}), **settings})
    known = {} if agent is None else {name: agent.path / name for name in (DOCUMENTS, CONVERSATIONS, LIBRARY)}
    known = {name: path for name, path in known.items() if path.is_file()}
    if known:
        whole = add_files(whole, work / "whole", manifest.phase, {}, known)
    siblings = {PACKED: pack_checkpoint(whole, work / PACKED).path} if ternary else {}
    result = save_family(out, whole.path, siblings)
    shutil.rmtree(work)
    return result


def _settings(agent: Checkpoint) -> dict[str, str]:
    """An agent's own, without the mixture of its experts."""
    if not (agent.path / SETTINGS).is_file():
        return {}
    settings = read_settings(agent.path)
    plain = settings.model_copy(update={"design": settings.design.model_copy(update={"mixture": Mixture()})})
    return {SETTINGS: plain.model_dump_json(indent=2) + "\n"}
