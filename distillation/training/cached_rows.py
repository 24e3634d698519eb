"""Packed rows, with or without what teachers thought of them, as a training step's rows.

    CachedRows([Part(rows, [(cache, 1.0)])], seed)                        # one teacher
    CachedRows([Part(rows)], seed)                                        # text alone: the control sees the same rows
    CachedRows([Part(easy, [(a, 1.0)]), Part(hard, [(b, 1.0)])], seed)    # routed: each record by its own teacher
    CachedRows([Part(rows, [(a, 0.7), (b, 0.3)])], seed)                  # pooled: a mixture of the teachers
    CachedRows([Part(rows, [(cache, 1.0)], trust_E)], seed)               # trusted less on some examples

Rows come in seeded permutations over all parts, one an epoch: a function of the seed and the step alone. A mark is one
stored token: its id in the upper half of an int64, the bits of its float32 share in the lower one.

Shapes: B rows, T positions, P of a row's that have a weight, K stored tokens of a position (0 where a position has
fewer), E examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from distillation.cache.read import Cache
from distillation.training.row_file import RowFile
from phases.errors import ConfigError, DataError
from phases.training.batches import Rows

_ORDER = 41
"""Stream of random numbers."""
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class Part:
    """Rows, and the caches that were made of them with the teachers' weights (which sum to 1); none: text alone."""

    rows: RowFile
    teachers: Sequence[tuple[Cache, float]] = ()
    trust_E: npt.NDArray[np.float32] | None = None
    """How far the teachers are trusted on each example of the rows, 0 to 1: their shares are multiplied by it. None:
    fully, as they are on rows of text."""


class CachedRows:
    """The rows of all parts, each once an epoch."""

    def __init__(self, parts: Sequence[Part], seed: int) -> None:
        """Raises `DataError` for a cache of other rows, `ConfigError` for parts that do not fit together."""
        self.parts, self.seed = parts, seed
        self.first = np.cumsum([0, *(len(part.rows) for part in parts)])
        self.ghost = _check(parts)
        self._order = lru_cache(maxsize=4)(self._permutation)

    def __len__(self) -> int:
        return int(self.first[-1])

    def rows(self, step: int, count: int) -> Rows:
        """The `count` rows of a step; marks are (B, T, K), where any part has a teacher."""
        at = [self.place(step * count + i) for i in range(count)]
        tokens = np.stack([self.parts[part].rows.tokens_NT[row] for part, row in at]).astype(np.int64)
        weight = np.stack([self.parts[part].rows.weight_NT[row] for part, row in at])
        taught = any(part.teachers for part in self.parts)
        marks = torch.from_numpy(self._marks(at, weight)) if taught else None
        return Rows(torch.from_numpy(tokens), torch.from_numpy(weight), marks)

    def _marks(self, at: Sequence[tuple[int, int]], weight_BT: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        rows = [self._row_marks(self.parts[part], row) for part, row in at]
        width = max(1, *(marks.shape[1] for marks in rows))
        marks_BTK = np.zeros((*weight_BT.shape, width), dtype=np.int64)
        for b, marks in enumerate(rows):
            if marks.size:
                marks_BTK[b, weight_BT[b] > 0, : marks.shape[1]] = marks
        return marks_BTK

    @staticmethod
    def _row_marks(part: Part, row: int) -> npt.NDArray[np.int64]:
        """(P, K) marks of a row's weighted positions, the teachers' side by side."""
        found, trust = [], _trust(part, row)
        for cache, weight in part.teachers:
            ids_PK, share_PK = cache.row(row)
            found.append(pack_marks(ids_PK, share_PK * (trust * np.float32(weight))))
        return np.concatenate(found, axis=1) if found else np.zeros((0, 0), dtype=np.int64)

    def place(self, position: int) -> tuple[int, int]:
        """(part, row in it) of the `position`-th row since the beginning."""
        epoch, index = divmod(position, len(self))
        row = int(self._order(epoch)[index])
        part = int(np.searchsorted(self.first, row, side="right")) - 1
        return part, row - int(self.first[part])

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self))


def _trust(part: Part, row: int) -> npt.NDArray[np.float32] | np.float32:
    """(P, 1) how far the teachers are trusted at a row's weighted positions."""
    if part.trust_E is None:
        return np.float32(1)
    example_P = part.rows.example_NT[row][part.rows.weight_NT[row] > 0]
    return np.where(example_P >= 0, part.trust_E[example_P], np.float32(1))[:, None]


def pack_marks(ids: npt.NDArray[np.int64], share: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Marks of the same shape."""
    marks: npt.NDArray[np.int64] = ids << 32 | share.view(np.int32).astype(np.int64)
    return marks


def read_marks(marks_NK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """((N, K) int64 ids, (N, K) float32 shares)."""
    return marks_NK >> 32, (marks_NK & _LOW).to(torch.int32).view(torch.float32)


def _check(parts: Sequence[Part]) -> bool:
    """Whether the teachers are stored with a ghost."""
    if len({(part.rows.block_tokens, part.rows.tokenizer) for part in parts}) != 1:
        raise ConfigError(
            "parts with different row lengths or tokenizers cannot be trained on together: pack them alike"
        )
    kinds = {cache.ghost for part in parts for cache, _ in part.teachers}
    if len(kinds) > 1:
        raise ConfigError("caches with and without a ghost cannot be mixed: store all teachers by the same method")
    if True in kinds and any(len(part.teachers) > 1 for part in parts):
        raise ConfigError("caches with a ghost cannot be pooled over teachers: store them by method `sampled`")
    if True in kinds and any(part.trust_E is not None for part in parts):
        raise ConfigError("a teacher with a ghost is trusted fully or not at all: set trust=1, or cache.method=sampled")
    if len({cache.tau for part in parts for cache, _ in part.teachers}) > 1:
        raise ConfigError("caches of different temperatures cannot be mixed: store all teachers at the same tau")
    for part in parts:
        total = sum(weight for _, weight in part.teachers)
        if part.teachers and abs(total - 1) > 1e-6:
            raise ConfigError(f"the teachers' weights of one part sum to {total:g}: make it 1")
        for cache, _ in part.teachers:
            if cache.rows != part.rows.digest:
                raise DataError(f"{cache.path}: made of other rows ({cache.rows[:12]}…, here {part.rows.digest[:12]}…)")
    return kinds == {True}
