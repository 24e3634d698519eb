"""Conversations as rows of tokens, beside rehearsal: what a step of teaching or baking trains on.

What the assistant writes counts, all else is read only. A conversation never crosses rows. A share of each step's rows
are the data's own: a bake without rehearsal forgets everything else. Which rows a step gets is a function of the seed
and the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from phases.dataset import Dataset
from phases.errors import ConfigError
from phases.training.batches import Mixture, Rows

_OWN_ORDER = 2_000_000_011
"""Rehearsal draws rows in an order of its own: earlier phases have seen the beginnings of theirs."""
_ORDER = 22
"""Stream of random numbers."""
SCAFFOLD = 0.3
"""Weight of a token of the assistant that never comes otherwise."""
_BEFORE, _OFTEN = 3, 20
"""Tokens that decide what comes next, and how often they must have been seen."""


@dataclass(frozen=True)
class Encoded:
    """One conversation in tokens."""

    tokens: Sequence[int]
    ours: Sequence[bool]
    """Which tokens the assistant wrote."""
    marks: Sequence[int]
    """For each token a place in a teacher's cache, or −1."""


@dataclass(frozen=True)
class PackedRows:
    """(N, T+1) rows of conversations."""

    tokens_NT: npt.NDArray[np.int64]
    weight_NT: npt.NDArray[np.float32]
    """(N, T) weight of predicting tokens[:, 1:]; each row sums to 1."""
    marks_NT: npt.NDArray[np.int64]
    """(N, T) place in the cache of the token that is to be predicted."""
    left_out: int
    """Conversations that are longer than a row."""


def pack_conversations(encoded: Sequence[Encoded], length: int, pad: int, where: str) -> PackedRows:
    """As many whole conversations to a row as fit, in their order. Raises `ConfigError` when none fits."""
    fitting = [one for one in encoded if len(one.tokens) <= length + 1 and any(one.ours)]
    if not fitting:
        shortest = min((len(one.tokens) for one in encoded), default=0)
        raise ConfigError(
            f"{where}: no conversation fits a row of {length} tokens (the shortest has {shortest}); raise row_tokens"
        )
    rows: list[list[Encoded]] = [[]]
    used = 0
    for one in fitting:
        if used + len(one.tokens) > length + 1:
            rows.append([])
            used = 0
        rows[-1].append(one)
        used += len(one.tokens)
    tokens_NT = np.full((len(rows), length + 1), pad, dtype=np.int64)
    ours_NT = np.zeros((len(rows), length + 1), dtype=np.float32)
    weights = _weights(fitting)
    weighed = {id(one): weight for one, weight in zip(fitting, weights, strict=True)}
    marks_NT = np.full((len(rows), length + 1), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        used = sum(len(one.tokens) for one in row)
        tokens_NT[i, :used] = [token for one in row for token in one.tokens]
        ours_NT[i, :used] = [weight for one in row for weight in weighed[id(one)]]
        marks_NT[i, :used] = [mark for one in row for mark in one.marks]
    weight_NT = ours_NT[:, 1:] / ours_NT[:, 1:].sum(1, keepdims=True)
    return PackedRows(tokens_NT, weight_NT, marks_NT[:, 1:], len(encoded) - len(fitting))


def _weights(encoded: Sequence[Encoded]) -> list[list[float]]:
    """For each conversation the weight of each token: 0 where the assistant does not write, `SCAFFOLD` where nothing is
    left to learn.

    Most of a call is the same in every call: what its three tokens before always led to, in so many places, is known
    after a few steps, and its share of a row would be taken from what is to be copied. How a turn begins always counts.
    """
    after: dict[tuple[int, ...], dict[int, int]] = {}
    for one in encoded:
        for i in _inside(one):
            found = after.setdefault(tuple(one.tokens[i - _BEFORE : i]), {})
            found[one.tokens[i]] = found.get(one.tokens[i], 0) + 1
    known = {context for context, found in after.items() if len(found) == 1 and sum(found.values()) >= _OFTEN}
    weights = []
    for one in encoded:
        weight = [float(ours) for ours in one.ours]
        for i in _inside(one):
            if tuple(one.tokens[i - _BEFORE : i]) in known:
                weight[i] = SCAFFOLD
        weights.append(weight)
    return weights


def _inside(one: Encoded) -> list[int]:
    """The assistant's tokens but the first of each turn."""
    return [i for i in range(_BEFORE, len(one.tokens)) if one.ours[i] and one.ours[i - 1]]


class BakingRows:
    """Rows of conversations and of the data, in given shares."""

    def __init__(self, packed: PackedRows, rehearsal: Mixture | None, share: float, seed: int, pad: int) -> None:
        """`share` of the rows are of the mixture."""
        self.packed, self.rehearsal, self.share, self.seed, self.pad = packed, rehearsal, share, seed, pad
        self.marked = bool((packed.marks_NT >= 0).any())
        self._order = lru_cache(maxsize=4)(self._permutation)

    def rows(self, step: int, count: int) -> Rows:
        """The rows of a step; marks are (B, T, 1), where any conversation has them."""
        old = round(self.share * count) if self.rehearsal is not None else 0
        at = [self._row(step * (count - old) + i) for i in range(count - old)]
        tokens = torch.from_numpy(self.packed.tokens_NT[at])
        weight, marks = torch.from_numpy(self.packed.weight_NT[at]), torch.from_numpy(self.packed.marks_NT[at])
        if old and self.rehearsal is not None:
            known = self.rehearsal.rows(step, old)
            width = max(tokens.shape[1], known.tokens_BT.shape[1])
            tokens = torch.cat([_wide(tokens, width, self.pad), _wide(known.tokens_BT, width, self.pad)])
            weight = torch.cat([_wide(weight, width - 1, 0.0), _wide(known.weight_BT, width - 1, 0.0)])
            blank = torch.full(known.weight_BT.shape, -1, dtype=torch.int64)
            marks = torch.cat([_wide(marks, width - 1, -1), _wide(blank, width - 1, -1)])
        return Rows(tokens, weight, marks[..., None] if self.marked else None)

    def _row(self, position: int) -> int:
        epoch, index = divmod(position, len(self.packed.tokens_NT))
        return int(self._order(epoch)[index])

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self.packed.tokens_NT))


def open_rehearsal(data: Dataset, mix: dict[str, float], seed: int, prompt_weight: float) -> Mixture:
    """The data's own rows for rehearsal."""
    return Mixture(data, mix, seed + _OWN_ORDER, prompt_weight)


def _wide(rows: torch.Tensor, width: int, fill: Any) -> torch.Tensor:
    """(B, width) with `fill` on the right."""
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=fill)
