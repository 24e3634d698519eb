"""Merging in the data-flow space (Sakana AI, arXiv 2403.13187, section 3.2), folded into a plain checkpoint.

Tokens walk a path through the layers of several models; the input of step k is scaled by W_k before it enters layer
k. The residual stream of a pre-norm decoder makes that scale foldable. With P_k = W_1 ··· W_k and h = P_k · g,

    h_k = W_k h_{k−1} + f(norm(W_k h_{k−1}))    ⇔    g_k = g_{k−1} + f(norm(g_{k−1})) / P_k

because RMSNorm does not see a positive scale (up to its epsilon), and the final norm does not see P. So the matrices
that write to the stream, `o_proj` and `down_proj`, are divided by P_k, and any Llama-style runtime can load the
result. The paper reports that fixing W to 1 costs over 20 points.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import mul

import torch

from phases.errors import MergeError
from phases.evomerge.frankenmerge import passthrough

WRITERS = ("self_attn.o_proj.", "mlp.down_proj.")
"""Modules whose output is added to the residual stream (weight and bias)."""


def layout(layers: Sequence[tuple[int, int]], repeats: int) -> list[tuple[int, int]]:
    """All M layers of all models, one after the other, `repeats` times: M·r slots of the indicator."""
    return list(layers) * repeats


def chosen_path(
    slots: Sequence[tuple[int, int]], indicator: Sequence[float], scales: Sequence[float], base: int
) -> tuple[list[tuple[int, int]], list[float]]:
    """The slots whose indicator is above zero with their scales, first and last layer from parent `base`.

    The end layers are added (with scale 1) where the indicator left them out.
    """
    first, last = slots[slots.index((base, 0))], max(slot for slot in slots if slot[0] == base)
    inner = [(s, w) for s, i, w in zip(slots, indicator, scales, strict=True) if i > 0]
    if not inner or inner[0][0] != first:
        inner.insert(0, (first, 1.0))
    if inner[-1][0] != last:
        inner.append((last, 1.0))
    return [slot for slot, _ in inner], [scale for _, scale in inner]


def fold(tensors: Mapping[str, torch.Tensor], scales: Sequence[float]) -> dict[str, torch.Tensor]:
    """Divide each step's stream writers by the running product of the input scales (the equation above).

    `tensors` are those of the laid-out model; `scales` has one positive number a layer. Raises `MergeError` for a
    scale that is not a positive finite number.
    """
    for step, scale in enumerate(scales):
        if not (math.isfinite(scale) and scale > 0):
            raise MergeError(f"dfs: input scale {scale} of step {step} is not a positive number; W must be above zero")
    folded = dict(tensors)
    for step, product in enumerate(accumulate(scales, mul)):
        for name in tensors:
            if f"layers.{step}." in name and any(writer in name for writer in WRITERS):
                folded[name] = tensors[name] / product
    return folded


def dfs(
    parents: Sequence[Mapping[str, torch.Tensor]], path: Sequence[tuple[int, int]], scales: Sequence[float]
) -> dict[str, torch.Tensor]:
    """Tensors of the plain model that walks `path` with input scales `scales`."""
    if len(path) != len(scales):
        raise MergeError(f"dfs: {len(path)} steps but {len(scales)} scales; give one scale a step")
    return fold(passthrough(parents, path), scales)
