"""Which rows a step trains on: a pure function of the seed and the step, so that a resumed run needs no position.

A mixture draws the stream of every row by its weight; inside a stream the rows come in seeded permutations, one an
epoch, so that no row is seen twice before all have been seen once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from phases.dataset import Dataset
from phases.errors import ConfigError


@dataclass(frozen=True)
class Rows:
    """A batch: tokens and the loss weight of every token that is to be predicted."""

    tokens_BT: torch.Tensor
    """(B, T+1) int64."""
    weight_BT: torch.Tensor
    """(B, T) float32: weight of predicting tokens[:, 1:]; each row sums to 1."""
    marks_BTC: torch.Tensor | None = None
    """(B, T, C) int64: what else an objective wants to know of each position; it reaches its forward pass."""


class RowSource(Protocol):
    """Where the rows of a step come from."""

    def rows(self, step: int, count: int) -> Rows:
        """The `count` rows of `step`."""
        ...


class Mixture:
    """Rows of several streams of a data set in given proportions."""

    def __init__(self, data: Dataset, weights: Mapping[str, float], seed: int, prompt_weight: float) -> None:
        self.names = names = [name for name, weight in weights.items() if weight > 0]
        missing = sorted(set(names) - set(data.streams("train")))
        if missing:
            have = ", ".join(data.streams("train"))
            raise ConfigError(f"mix: the data has no stream {', '.join(missing)}; it has: {have}")
        self.tokens = [data.blocks("train", name) for name in names]
        self.masks = [data.mask("train", name) for name in names]
        share = np.array([weights[name] for name in names], dtype=np.float64)
        self.cumulative = np.cumsum(share / share.sum())
        self.seed, self.prompt_weight = seed, prompt_weight
        self._drawn = [np.zeros(len(names), dtype=np.int64)]
        self._order = lru_cache(maxsize=4 * len(names))(self._permutation)

    def rows(self, step: int, count: int) -> Rows:
        """The `count` rows of `step`."""
        choice = self.choices(step, count)
        before = self._rows_before(step, count)
        picked = []
        for stream in choice:
            picked.append(self._row(stream, int(before[stream])))
            before[stream] += 1
        tokens = np.stack([self.tokens[s][i] for s, i in picked]).astype(np.int64)
        mask = np.stack([self.masks[s][i] for s, i in picked])[:, 1:]
        weight = np.where(mask == 1, 1.0, np.where(mask == 2, 0.0, self.prompt_weight)).astype(np.float32)
        # Every row has the same say: else a row of short answers drowns among rows of running text.
        weight /= weight.sum(1, keepdims=True)
        return Rows(torch.from_numpy(tokens), torch.from_numpy(weight))

    def choices(self, step: int, count: int) -> npt.NDArray[np.int64]:
        """(count,) each row's stream, an index into `names`: low-discrepancy, so that a batch is close to the mix."""
        offset = np.random.default_rng([self.seed, 1, step]).random()
        points = (np.arange(count) + offset) / count
        return np.searchsorted(self.cumulative, points, side="right").clip(max=len(self.tokens) - 1)

    def _rows_before(self, step: int, count: int) -> npt.NDArray[np.int64]:
        """(streams,) rows of each stream that the steps before this one have used."""
        while len(self._drawn) <= step:
            extra = self.choices(len(self._drawn) - 1, count)
            self._drawn.append(self._drawn[-1] + np.bincount(extra, minlength=len(self.tokens)))
        return self._drawn[step].copy()

    def _row(self, stream: int, position: int) -> tuple[int, int]:
        epoch, index = divmod(position, len(self.tokens[stream]))
        return stream, int(self._order(stream, epoch)[index])

    def _permutation(self, stream: int, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, 2, stream, epoch]).permutation(len(self.tokens[stream]))


def shard(rows: Rows, parts: int, index: int) -> Rows:
    """The `index`-th of `parts` equal slices of a batch (a micro-batch, or one process's share)."""
    marks_BTC = None if rows.marks_BTC is None else rows.marks_BTC[index::parts]
    return Rows(rows.tokens_BT[index::parts], rows.weight_BT[index::parts], marks_BTC)
