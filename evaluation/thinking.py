"""Any checkpoint as the model for a mode of thought: on, off, or shuffled (another position's thoughts).

    model = open_model(checkpoint, "on")
    answers = exact_match(model, tokenizer, items)

It is a transformers model, so every measure takes it. It thinks at every position, as scoring a text needs; whoever
reads the last position only says so (`at_last_position`), which saves the thoughts at all the others.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from evaluation.language import token_nats
from evaluation.ratio import BlockLosses
from phases.checkpoint import Checkpoint
from phases.quiet_star.decoder import Mode, Thinking, ThinkingDecoder, Thought, thinking_model
from phases.quiet_star.storage import load_thinker


def open_model(checkpoint: Checkpoint, thoughts: Mode = "off", seed: int = 0, tokens: int | None = None) -> Any:
    """The checkpoint's model in evaluation mode; thoughts have `tokens` tokens (None: as many as in training).

    Raises `CheckpointError` when thoughts are not off and the checkpoint does not think.
    """
    if thoughts == "off":
        return checkpoint.model()
    thinker, trained = load_thinker(checkpoint.path)
    thinking = Thinking(
        mode=thoughts,
        tokens=trained.tokens if tokens is None else tokens,
        temperature=trained.temperature,
        pause=trained.pause,
        seed=seed,
    )
    return thinking_model(thinker, thinking)


def _decoder(model: Any) -> ThinkingDecoder | None:
    inner = getattr(model, "model", None)
    return inner if isinstance(inner, ThinkingDecoder) else None


def without_thoughts(model: Any) -> Any:
    """The same weights as a plain model: what an early exit is measured on, since thoughts need all layers."""
    decoder = _decoder(model)
    return model if decoder is None else decoder.thinker.model


@contextlib.contextmanager
def at_last_position(model: Any) -> Iterator[None]:
    """Think at the last position of each call only, as writing needs; a plain model stays as it is."""
    decoder = _decoder(model)
    if decoder is None:
        yield
        return
    before = decoder.thinking
    decoder.thinking = before.model_copy(update={"everywhere": False})
    try:
        yield
    finally:
        decoder.thinking = before


def newest_thought(model: Any) -> Thought | None:
    """What a thinking model thought before its newest prediction; None for a plain one."""
    decoder = _decoder(model)
    return None if decoder is None else decoder.newest


@torch.inference_mode()
def thinking_losses(
    model: Any, tokens_NT: torch.Tensor, bytes_N: npt.NDArray[np.float64], batch: int = 16
) -> BlockLosses:
    """The nats for each text block with a thought at every position.

    18 more tokens are read for each that is predicted (8 of a thought, drawn one by one, then all again with the two
    delimiters): 45 s for 128 blocks of 256 tokens at 1 M parameters on one core, 25 times as long as without.
    """
    nats = []
    for rows_BT in torch.split(tokens_NT, batch):
        rows_BT = rows_BT.to(model.device)
        hidden_BTD = model.base_model(input_ids=rows_BT[:, :-1], use_cache=False).last_hidden_state
        nats_N = token_nats(model.get_output_embeddings(), hidden_BTD.flatten(0, 1), rows_BT[:, 1:].flatten())
        nats.append(nats_N.view(len(rows_BT), -1).double().sum(1).cpu())
    return BlockLosses(torch.cat(nats).numpy(), bytes_N, tokens_NT.shape[1] - 1)
