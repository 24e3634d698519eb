"""Exit depth against difficulty: how many layers a token needs when it may leave as soon as the model is sure.

The confidence exit (CALM, arXiv 2207.07061): a token leaves after the first layer whose exit gives its top token a
probability of at least τ, else after the last. A model that has learned to compute adaptively leaves early on easy
tokens and late on hard ones; the slope of depth on difficulty, with its standard error, says whether it does.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from evaluation.language import rows_per_slice
from phases.exits import exit_hidden_states
from phases.probe import encode_items
from phases.tasks.item import Item

Floats = npt.NDArray[Any]


@dataclass(frozen=True)
class Exits:
    """What n tokens did at confidence τ."""

    depth_n: Floats
    """Layer that each token left after, 1 … L."""
    agrees_n: npt.NDArray[np.bool_]
    """Whether the exit's top token is the full model's."""
    surprisal_n: Floats
    """Bits that the full model paid for the true token: the token's difficulty."""
    unit_n: npt.NDArray[np.int64]
    """The block or item that each token belongs to."""


@torch.inference_mode()
def token_exits(model: Any, tokens_BT: torch.Tensor, wanted_BT: torch.Tensor, tau: float) -> Exits:
    """Exits of the tokens where `wanted_BT` (bool) holds; position 0 cannot be predicted and is left out."""
    layers = len(model.model.layers)
    states = exit_hidden_states(model, tokens_BT[:, :-1].to(model.device), range(1, layers + 1))
    wanted = wanted_BT[:, 1:]
    where = wanted.to(model.device)
    target_n = tokens_BT[:, 1:].to(model.device)[where]
    parts = [
        _slice_exits(model.lm_head, hidden, target, tau)
        for hidden, target in zip(
            torch.split(torch.stack([state[where] for state in states], 1), rows_per_slice(model.lm_head)),
            torch.split(target_n, rows_per_slice(model.lm_head)),
            strict=True,
        )
    ]
    depth, agrees, bits = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return Exits(depth.astype(np.float64), agrees, bits.astype(np.float64), wanted.nonzero()[:, 0].numpy())


def _slice_exits(
    head: Any, hidden_nLD: torch.Tensor, target_n: torch.Tensor, tau: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(n,) depth, agreement and surprisal, one layer's logits at a time."""
    layers = hidden_nLD.shape[1]
    tops, sure = [], []
    for layer in range(layers):
        log_nV = head(hidden_nLD[:, layer]).float().log_softmax(-1)
        best_n, top_n = log_nV.max(-1)
        tops.append(top_n)
        sure.append(best_n.exp() >= tau)
    bits_n = -log_nV.gather(1, target_n[:, None])[:, 0] / math.log(2)
    sure[-1] = torch.ones_like(sure[-1])
    first_n = torch.stack(sure, 1).int().argmax(1)
    exit_n = torch.stack(tops, 1).gather(1, first_n[:, None])[:, 0]
    return first_n + 1, exit_n == tops[-1], bits_n


def text_exits(model: Any, tokens_NT: torch.Tensor, tau: float, batch: int = 16) -> Exits:
    """Exits of every predicted token of text blocks; the unit is the block."""
    parts = [
        token_exits(model, rows, torch.ones_like(rows, dtype=torch.bool), tau) for rows in torch.split(tokens_NT, batch)
    ]
    units = [part.unit_n + i * batch for i, part in enumerate(parts)]
    return _join(parts, units)


def item_exits(model: Any, tokenizer: Any, items: Sequence[Item], tau: float) -> Exits:
    """Exits of the items' completion tokens (gold tokens before them); the unit is the item."""
    batches = encode_items(tokenizer, items)
    parts = [token_exits(model, b.tokens_BT, b.answer_BT, tau) for b in batches]
    units = [np.asarray(b.index)[part.unit_n] for b, part in zip(batches, parts, strict=True)]
    return _join(parts, units)


def _join(parts: Sequence[Exits], units: Sequence[npt.NDArray[np.int64]]) -> Exits:
    return Exits(
        depth_n=np.concatenate([p.depth_n for p in parts]),
        agrees_n=np.concatenate([p.agrees_n for p in parts]),
        surprisal_n=np.concatenate([p.surprisal_n for p in parts]),
        unit_n=np.concatenate(units),
    )


def unit_means(values_n: Floats, unit_n: npt.NDArray[np.int64], units: int) -> Floats:
    """(units,) mean of each unit's tokens; NaN for a unit without tokens."""
    counts = np.bincount(unit_n, minlength=units).astype(np.float64)
    sums = np.bincount(unit_n, weights=values_n, minlength=units)
    return np.asarray(np.divide(sums, counts, out=np.full(units, np.nan), where=counts > 0))


def slope(x_n: Floats, y_n: Floats, cluster_n: Sequence[Hashable] | npt.NDArray[Any]) -> tuple[float, float]:
    """Least-squares slope of y on x and its cluster-robust standard error (Liang & Zeger 1986).

    Tokens of one block are not independent, so the error sums the scores within each cluster first. Both are 0 when x
    does not vary.
    """
    centred_n = x_n - x_n.mean()
    spread = float((centred_n**2).sum())
    if spread == 0:
        return 0.0, 0.0
    rise_n = y_n - y_n.mean()
    value = float(centred_n @ rise_n) / spread
    residual_n = rise_n - value * centred_n
    residual_n[np.abs(residual_n) < 1e-12] = 0.0  # rounding, not spread
    _, cluster = np.unique(np.asarray(cluster_n), return_inverse=True)
    scores = np.bincount(cluster, weights=centred_n * residual_n)
    return value, math.sqrt(float((scores**2).sum())) / spread


def within(values_n: Floats, groups: Sequence[Hashable]) -> Floats:
    """Values less their group's mean: difficulties of different tasks have different scales."""
    _, group = np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)
    means = np.bincount(group, weights=values_n) / np.bincount(group)
    return np.asarray(values_n - means[group], dtype=np.float64)
