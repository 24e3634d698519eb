"""Does a model see the future: perturb one token and look for a change before it.

    assert_causal(model, tokens)

Symmetric masks, a cache that is written too early and losses that shift the wrong way all pass for brilliant models
until generation. Every model that the forge builds goes through this test.
"""

from typing import Any

import torch

TOLERANCE = 1e-6
"""Largest change of a logit that counts as none; on one machine the difference is normally 0."""


@torch.inference_mode()
def first_leak(model: Any, tokens_T: torch.Tensor, tolerance: float = TOLERANCE) -> int | None:
    """The first position whose logits depend on a later token; None when there is none.

    Token t + 1 is replaced for every t in turn: row t of a batch has another token there, and the logits at 0 … t
    must not move. `model` is called as `model(input_ids=…).logits`, (B, T) to (B, T, V). A batch of untouched rows
    of the same shape is the reference, so that both go through the same kernels. Memory is T² · V floats.
    """
    width = len(tokens_T)
    if width < 2:
        raise ValueError("a causality test needs at least two tokens")
    vocabulary = int(model.config.vocab_size)
    same_BT = tokens_T.repeat(width - 1, 1)
    changed_BT = same_BT.clone()
    row = torch.arange(width - 1)
    changed_BT[row, row + 1] = (changed_BT[row, row + 1] + 1) % vocabulary
    change_BTV = model(input_ids=changed_BT).logits - model(input_ids=same_BT).logits
    moved_BT = ~(change_BTV.abs().amax(-1) <= tolerance)  # so that NaN counts as moved
    leaks_BT = moved_BT & (torch.arange(width) <= row[:, None])
    return int(leaks_BT.any(0).nonzero()[0]) if leaks_BT.any() else None


def assert_causal(model: Any, tokens_T: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    """Raise `AssertionError` that names the first position that sees the future."""
    leak = first_leak(model, tokens_T, tolerance)
    assert leak is None, f"{type(model).__name__}: the logits at position {leak} depend on a later token"
