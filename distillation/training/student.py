"""The student before it has learnt anything: cut out of its teacher, a model of the user's own, or a fresh one.

    student = make_student(teacher, Pruned(ratio=0.5), Path("student"), calibration=rows)

What is cut away is chosen by measured importance (`importance.py`), and the shape is the one nearest the wanted ratio
of all parameters, embeddings included. A ternary teacher is cut on its latent weights, so its student trains on through
the lattice. What was decided is in `student.json` beside the weights. Cost: a few dozen readings of the rows.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from transformers import AutoModelForCausalLM

from distillation.training.importance import channel_scores, choose_layers
from distillation.training.learner import PHASE, Learner, open_learner, save_learner
from distillation.training.pruning import Axes, Cut, choose_shape, cut_config, cut_tensors, sizes_of, strongest
from phases.agent.depth import with_layers
from phases.bitnet.estimator import Quantised
from phases.bitnet.storage import is_ternary, open_latent, read_settings, refuse_packed
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint
from phases.cognate.shape import Shape, llama_config
from phases.errors import InputError
from phases.strict import StrictModel
from phases.training.batches import Rows

REPORT = "student.json"


class Pruned(StrictModel):
    """Cut out of the teacher."""

    kind: Literal["pruned"] = "pruned"
    """Cut out of the teacher."""
    ratio: float = Field(0.5, gt=0, lt=1)
    """Share of the teacher's parameters, embeddings included; met as nearly as the axes allow."""
    axes: Axes = "both"
    """Whole layers, the width of the layers (heads and neurons), or both, neurons before the others."""
    layers: int | None = Field(None, ge=1)
    """Depth of the student; empty: what follows from ratio and axes."""
    calibration_rows: int = Field(16, ge=1)
    """Training rows that importance is measured on."""


class Own(StrictModel):
    """A model of the user's own, or the last champion."""

    kind: Literal["checkpoint"] = "checkpoint"
    """A model of the user's own."""
    path: str
    """A folder that `forge` or transformers wrote."""


class Fresh(StrictModel):
    """Random weights."""

    kind: Literal["fresh"] = "fresh"
    """Random weights."""
    shape: Shape = Shape(layers=2, intermediate=160)
    """Dimensions of the Llama model; its vocabulary is the teacher's."""


StudentConfig = Annotated[Pruned | Own | Fresh, Field(discriminator="kind")]


def make_student(
    teacher: Checkpoint | None,
    config: Pruned | Own | Fresh,
    out: Path,
    *,
    calibration: Rows | None = None,
    seed: int = 0,
) -> Checkpoint:
    """Write the student to `out`; `calibration` is what importance is measured on (`Pruned` only).

    `teacher` is None where it is an endpoint: the student is then a model of one's own, and its share not known.

    Raises `InputError` for a student that is not smaller than its teacher, and `CheckpointError` for a teacher that
    cannot be cut.
    """
    decided: dict[str, Any] = {}
    given = open_checkpoint(config.path) if isinstance(config, Own) else None
    if teacher is None:
        if given is None:
            raise InputError(f"student.kind={config.kind}: it needs a local teacher; set student.kind=checkpoint")
        learner = open_learner(given)
        sizes = {"parameters": float(learner.parameters)}
    else:
        refuse_packed(teacher, PHASE)
        model = teacher.model()
        learner, decided = _learner(teacher, model, config, given, calibration, seed)
        sizes = _compared(learner.parameters, sum(parameter.numel() for parameter in model.parameters()))
    report = {"kind": config.kind, **sizes, **decided}
    parents = tuple(one.digest for one in (teacher, given) if one is not None)
    manifest = Manifest(f"{PHASE}/initial", {"student": config.model_dump(mode="json")}, seed, parents, metrics=sizes)
    return save_learner(learner, out, manifest, {REPORT: json.dumps(report, indent=2, sort_keys=True) + "\n"})


def _compared(small: int, large: int) -> dict[str, float]:
    if small >= large:
        raise InputError(
            f"student: {small:,} parameters, its teacher has {large:,}; a student has to be smaller: give a smaller "
            "student.shape or student.path"
        )
    return {"parameters": float(small), "teacher_parameters": float(large), "ratio": small / large}


def _learner(
    teacher: Checkpoint,
    model: Any,
    config: Pruned | Own | Fresh,
    given: Checkpoint | None,
    calibration: Rows | None,
    seed: int,
) -> tuple[Learner, dict[str, Any]]:
    """The student, and what was decided on the way; `given`: where it is a model that there is already."""
    if isinstance(config, Own):
        assert given is not None
        return open_learner(given), {"path": config.path, "digest": given.digest}
    if isinstance(config, Fresh):
        tokenizer = teacher.tokenizer()
        torch.manual_seed(seed)
        shape = llama_config(config.shape, model.config.vocab_size, tokenizer.eos_token_id)
        return Learner(AutoModelForCausalLM.from_config(shape), tokenizer), {}
    if calibration is None:
        raise InputError("student.kind=pruned: importance is measured on training rows, and none were given")
    return _pruned(teacher, model, config, calibration)


def _pruned(teacher: Checkpoint, model: Any, config: Pruned, rows: Rows) -> tuple[Learner, dict[str, Any]]:
    sizes = sizes_of(model, str(teacher.path))
    shape = choose_shape(sizes, config.ratio, config.axes, config.layers)
    rows = Rows(rows.tokens_BT[: config.calibration_rows], rows.weight_BT[: config.calibration_rows])
    depth = choose_layers(model, rows, shape.layers)
    groups_LG, neurons_LI = channel_scores(with_layers(model, depth.kept), rows, sizes.whole.groups)
    cut = Cut(
        depth.kept,
        tuple(strongest(scores, shape.groups) for scores in groups_LG),
        tuple(strongest(scores, shape.neurons) for scores in neurons_LI),
    )
    small = AutoModelForCausalLM.from_config(cut_config(model.config, cut))
    quantisation = read_settings(teacher.path).quantisation if is_ternary(teacher.path) else None
    weights = dict(model.named_parameters()) | (open_latent(teacher).latent() if quantisation else {})
    small.load_state_dict(cut_tensors(weights, cut, sizes.whole.groups), strict=False)
    small.generation_config = model.generation_config
    decided = {"shape": asdict(shape), "teacher_shape": asdict(sizes.whole), "wanted": config.ratio, **asdict(depth)}
    return Learner(small, teacher.tokenizer(), Quantised(small, quantisation) if quantisation else None), decided
