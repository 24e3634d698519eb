"""A row's distributions to bytes, and how many draws there is room for.

How many bytes n draws take depends on how often they coincide, so it is measured: some rows are stored with more and
with fewer draws, and the most that stay within the limit are taken. A trained teacher of 2,048 tokens with an entropy
of 4 nats has room for 56 draws in 37 bytes; the worst that could be (a uniform one) for 36.

Shapes: P positions, V vocabulary.
"""

from collections.abc import Iterable

import numpy as np
import torch

from distillation.cache.codec import Bits, Codec, Kind
from distillation.cache.draw import draw, likeliest, split_rows, strata

SHRINK = 0.96
"""From one number of draws that is tried to the next."""
_STREAM = 43
"""Of random numbers."""


def store_row(codec: Codec, probability_PV: torch.Tensor, seed: int, row: int) -> Bits:
    """What is stored of one row; the draws depend on the seed and the row."""
    uniform_Pn = strata([seed, _STREAM, row], len(probability_PV), codec.size)
    slices = split_rows(probability_PV, uniform_Pn)
    found = [draw(p, u) if codec.kind == "sampled" else likeliest(p, codec.size) for p, u in slices]
    sizes, ids, numbers = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return codec.encode(sizes, ids, numbers)


def fitting_codec(
    kind: Kind, vocabulary: int, wanted: int, most_bytes: float, rows: Iterable[tuple[int, torch.Tensor]], seed: int
) -> Codec:
    """The codec of the largest size up to `wanted` that takes at most `most_bytes` a position over some rows."""
    sizes = [wanted if kind == "sampled" else min(wanted, vocabulary)]
    while sizes[-1] > 1:
        sizes.append(min(sizes[-1] - 1, round(SHRINK * sizes[-1])))
    codecs = [Codec(kind, vocabulary, size) for size in sizes]
    taken, positions = np.zeros(len(codecs)), 0
    for row, probability_PV in rows:
        taken += [len(store_row(codec, probability_PV, seed, row)) for codec in codecs]
        positions += len(probability_PV)
    return next((c for c, size in zip(codecs, taken, strict=True) if size <= most_bytes * positions), codecs[-1])
