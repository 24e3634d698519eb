"""A thinking model on disk: plain weights, `mixing_head.safetensors`, and `thinking.json` that says how it thinks.

Plain `from_pretrained` opens the folder as the model without thoughts; `load_thinker` opens it with them.
"""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from phases.checkpoint import load_model, load_tokenizer
from phases.errors import CheckpointError
from phases.quiet_star.delimiters import END, START
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.thinker import Thinker
from phases.strict import StrictModel

HEAD, SETTINGS = "mixing_head.safetensors", "thinking.json"


class ThinkingFile(StrictModel):
    """`thinking.json`."""

    start: int
    """Id of the token before a thought."""
    end: int
    """Id of the token after a thought."""
    tokens: int = Field(ge=0)
    """Length of the thoughts it was trained with, delimiters left out."""
    temperature: float = Field(1.0, gt=0)
    """Temperature they were sampled at."""
    pause: bool = False
    """Whether thoughts are start delimiters only: the control."""


def thinking_files(
    thinker: Thinker, settings: ThinkingFile
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    """(tensors, texts) that `save_checkpoint` puts beside the weights."""
    head = {name: tensor.detach() for name, tensor in thinker.head.state_dict().items()}
    return {HEAD: head}, {SETTINGS: settings.model_dump_json(indent=2) + "\n"}


def thinks(path: Path | str) -> bool:
    """Whether a checkpoint has what it takes to think."""
    return (Path(path) / SETTINGS).is_file()


def load_thinker(path: Path | str, dtype: torch.dtype = torch.float32) -> tuple[Thinker, ThinkingFile]:
    """Open a checkpoint with its mixing head, in evaluation mode.

    Raises `CheckpointError` when it has none, or one that does not fit.
    """
    path = Path(path)
    if not thinks(path):
        raise CheckpointError(
            f"{path}: does not think (no {SETTINGS}); give a checkpoint that the quiet_star phase wrote, or leave "
            "thoughts off"
        )
    settings = _settings(path / SETTINGS)
    model = load_model(path, dtype)
    head = MixingHead(int(model.config.hidden_size))
    try:
        head.load_state_dict(load_file(path / HEAD))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path / HEAD}: missing, truncated or of another shape ({reason}); restore it") from None
    _check_delimiters(path, load_tokenizer(path), settings)
    return Thinker(model, head, settings.start, settings.end).eval(), settings


def _settings(path: Path) -> ThinkingFile:
    try:
        return ThinkingFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        raise CheckpointError(f"{path}: truncated or altered; restore it from a copy or run the phase again") from None


def _check_delimiters(path: Path, tokenizer: Any, settings: ThinkingFile) -> None:
    if tokenizer.convert_tokens_to_ids([START, END]) != [settings.start, settings.end]:
        raise CheckpointError(f"{path}: the tokenizer has other ids for {START} and {END} than {SETTINGS}; restore it")
