"""MinHash signatures and the bands in which near-duplicates meet (Broder 1997; Leskovec, Rajaraman, Ullman, ch. 3).

Two texts of similarity s have the same number in a slot of their signatures with probability s, so they share a band of
r slots with s^r, and one of b bands with 1 − (1 − s^r)^b. Slots come from `rensa` (Rust; Fast Similarity Sketching,
arXiv 1704.04370). Only bands' hashes are kept: 8 bytes a band and text.
"""

from dataclasses import dataclass

import numpy as np
import rensa

from distillation.curation.shingles import Hashes, Shingles, combine, scramble

SLOTS = 128
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Banding:
    """How signatures are cut."""

    rows: int
    """Slots of a band."""
    bands: int

    def missed(self, similarity: float) -> float:
        """The probability that two texts of this similarity share no band."""
        return float((1 - similarity**self.rows) ** self.bands)


def banding(threshold: float, missed: float = 0.003, slots: int = SLOTS) -> Banding:
    """The narrowest net that loses at most this share of pairs *at* the threshold (above it: less).

    More slots a band mean fewer pairs to verify for nothing. One slot a band is the last resort.
    """
    choices = (Banding(rows, slots // rows) for rows in range(slots, 0, -1))
    return next((choice for choice in choices if choice.missed(threshold) <= missed), Banding(1, slots))


def band_hashes(shingles: Shingles, cut: Banding, seed: int, apart: Hashes | None = None) -> Hashes:
    """(bands, texts) hashes of the bands' slots; texts with different `apart` numbers never share one."""
    result = np.empty((cut.bands, len(shingles)), dtype=np.uint64)
    for first in range(0, len(shingles), _AT_ONCE):
        last = min(first + _AT_ONCE, len(shingles))
        slots = _slots(shingles, first, last, seed)
        for band in range(cut.bands):
            keys = combine(slots[:, band * cut.rows : (band + 1) * cut.rows])
            result[band, first:last] = keys if apart is None else scramble(keys ^ apart[first:last])
    return result


def _slots(shingles: Shingles, first: int, last: int, seed: int) -> Hashes:
    """(texts, SLOTS) signatures of a range of texts."""
    starts = shingles.starts[first : last + 1]
    values = scramble(shingles.values[starts[0] : starts[-1]])
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        values, (starts - starts[0]).astype(np.uint64), SLOTS, seed
    )
    return np.array(matrix.to_rows(), dtype=np.uint64).reshape(last - first, SLOTS)
