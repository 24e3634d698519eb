"""A row of stored distributions as bits: ids by their gaps (Elias–Fano), counts as runs, probabilities in 10 bits.

    raw = Codec("sampled", vocabulary, size).encode(ids_PK, number_PK)
    ids_PK, share_PK = codec.decode(raw, positions)

Of one row, one after the other, for all of its P positions:

    heads   sampled: n bits, one a draw, in the order of the ids, 1 where a new id begins, so counts are lengths of runs
            ghost:   k · 10 bits, −ln p in steps of 1/64 nats (p is right within 0.8 %)
    low     the last bits of each gap from one id to the next one of the position
    high    the rest of each gap, in unary: that many 0s and a 1

With u ids a gap is about V/u, and has floor(log2(0.69 · V/u)) low bits: the best Rice code of a geometric gap. 22
draws at V = 2,048 take 26 bytes a position at most, and fewer where draws coincide.

Shapes: P positions, K the most ids of any, E ids of all positions together.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["sampled", "ghost"]
Integers = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
CODE_BITS, CODE_STEPS = 10, 64
"""Of −ln p: bits, and steps a nat. The least probability is e⁻¹⁶."""


def ghost_codes(probability: npt.NDArray[Any]) -> Integers:
    """−ln p in steps of 1/64 nats."""
    with np.errstate(divide="ignore"):
        steps = np.rint(-np.log(probability.astype(np.float64)) * CODE_STEPS)
    codes: Integers = np.clip(steps, 0, 2**CODE_BITS - 1).astype(np.int64)
    return codes


@dataclass(frozen=True)
class Codec:
    """How rows of one cache are written."""

    kind: Kind
    vocabulary: int
    size: int
    """Draws, or ids, of a position."""

    @cached_property
    def widths(self) -> Integers:
        """Low bits of a gap by the number of ids of its position."""
        wide = [max(0, int(0.69 * self.vocabulary / ids).bit_length() - 1) for ids in range(1, self.size + 1)]
        widths: Integers = np.array([0, *wide], dtype=np.int64)
        return widths

    def encode(self, size_P: Integers, ids_E: Integers, number_E: Integers) -> Bits:
        """Bytes of a row: ids of each position, ascending, with their counts (or codes of probabilities)."""
        first_E, width_E = self._layout(size_P)
        gaps_E = np.diff(ids_E, prepend=0) - 1
        gaps_E[first_E] = ids_E[first_E]
        if self.kind == "sampled":
            head = np.zeros(len(size_P) * self.size, dtype=np.uint8)
            head[np.cumsum(number_E) - number_E] = 1
        else:
            head = _spread(number_E, np.full(len(number_E), CODE_BITS))
        high_E = gaps_E >> width_E
        high = np.zeros(int((high_E + 1).sum()), dtype=np.uint8)
        high[np.cumsum(high_E + 1) - 1] = 1
        low = _spread(gaps_E & ((1 << width_E) - 1), width_E)
        return np.packbits(np.concatenate([head, low, high]), bitorder="little")

    def decode(self, raw: Bits, positions: int) -> tuple[Integers, npt.NDArray[np.float32]]:
        """((P, K) ids, (P, K) float32 shares, 0 where a position has fewer) of a row."""
        bits = np.unpackbits(raw, bitorder="little")
        heads = positions * self.size * (1 if self.kind == "sampled" else CODE_BITS)
        if self.kind == "sampled":
            start_E = np.flatnonzero(bits[:heads])
            size_P = np.bincount(start_E // self.size, minlength=positions)
            share_E = np.diff(start_E, append=heads).astype(np.float32) / np.float32(self.size)
        else:
            size_P = np.full(positions, self.size)
            code_E = _gather(
                raw, np.arange(positions * self.size) * CODE_BITS, np.full(len(size_P) * self.size, CODE_BITS)
            )
            share_E = np.exp(-code_E / CODE_STEPS).astype(np.float32)
        first_E, width_E = self._layout(size_P)
        end_E = np.cumsum(width_E)
        low_E = _gather(raw, heads + end_E - width_E, width_E)
        below = heads + int(end_E[-1]) if len(end_E) else heads
        one_E = np.flatnonzero(bits[below:])
        gaps_E = (np.diff(one_E, prepend=-1) - 1 << width_E) + low_E
        return self._square(size_P, first_E, gaps_E, share_E)

    def _layout(self, size_P: Integers) -> tuple[npt.NDArray[np.bool_], Integers]:
        """((E,) whether an id is its position's first, (E,) low bits of its gap)."""
        first_E = np.zeros(int(size_P.sum()), dtype=np.bool_)
        first_E[np.cumsum(size_P) - size_P] = True
        return first_E, np.repeat(self.widths[size_P], size_P)

    @staticmethod
    def _square(
        size_P: Integers, first_E: npt.NDArray[np.bool_], gaps_E: Integers, share_E: npt.NDArray[np.float32]
    ) -> tuple[Integers, npt.NDArray[np.float32]]:
        """Ids from gaps, each position in a row of its own."""
        steps_E = np.where(first_E, gaps_E, gaps_E + 1)
        total_E = np.cumsum(steps_E)
        begin_P = np.cumsum(size_P) - size_P
        ids_E = total_E - np.repeat(total_E[begin_P] - steps_E[begin_P], size_P)
        width = int(size_P.max(initial=0))
        taken = np.arange(width) < size_P[:, None]
        ids_PK, share_PK = np.zeros(taken.shape, dtype=np.int64), np.zeros(taken.shape, dtype=np.float32)
        ids_PK[taken], share_PK[taken] = ids_E, share_E
        return ids_PK, share_PK


def _spread(number_E: Integers, width_E: Integers) -> Bits:
    """The numbers' bits one after the other, least first, each number's width its own."""
    which = np.repeat(np.arange(len(width_E)), width_E)
    place = np.arange(len(which)) - np.repeat(np.cumsum(width_E) - width_E, width_E)
    return (number_E[which] >> place & 1).astype(np.uint8)


def _gather(raw: Bits, start_E: Integers, width_E: Integers) -> Integers:
    """The numbers of some widths that begin at some bits; 25 bits at most."""
    found = np.zeros(len(start_E), dtype=np.int64)
    for k in range(math.ceil((int(width_E.max(initial=0)) + 7) / 8)):
        # Behind the end there are none of its bits, and so any byte will do.
        found |= np.take(raw, start_E // 8 + k, mode="clip").astype(np.int64) << 8 * k
    return found >> start_E % 8 & (1 << width_E) - 1
