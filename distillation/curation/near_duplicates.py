"""Near-duplicates: texts that share most of their word shingles. The first of a cluster stays.

    found = near_duplicates(texts, NearDuplicates(), seed=0)
    found.keep                      # (texts,) which stay
    found.pairs                     # removed text, the one that it was found like, their true Jaccard similarity

MinHash finds candidates (`signatures.py`); every candidate pair is then compared by its true Jaccard similarity, so
nothing is removed by chance. A cluster is what verified pairs connect. Texts that differ in a number, or in what
`apart` says of them (such as different right answers), ask different things and are never near-duplicates.
A million texts of 80 words: see `tests/benchmarks/near_duplicates.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from pydantic import Field

from distillation.curation.shingles import Hashes, Indices, Shingles
from distillation.curation.signatures import band_hashes, banding
from phases.strict import StrictModel

_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")
_PAIRS_A_TEXT = 8
_PAIRS_AT_LEAST = 4_000_000
"""Pairs that one band's round compares at most: texts of one template could all be candidates of each other."""


class NearDuplicates(StrictModel):
    """How alike two questions may be."""

    threshold: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of word shingles from which the later of two is removed."""
    shingle: int = Field(3, ge=1, le=20)
    """Words and symbols of a shingle; with more of them fewer texts are alike."""
    numbers_tell_apart: bool = True
    """Whether questions that differ in a number are different questions."""
    references_tell_apart: bool = True
    """Whether questions with different right answers are different questions."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Why a text was removed."""

    removed: int
    like: int
    """An earlier text of the cluster; itself removed, perhaps, for a still earlier one."""
    similarity: float


@dataclass(frozen=True)
class Found:
    """What stays, and why the rest does not."""

    keep: npt.NDArray[np.bool_]
    pairs: tuple[Pair, ...]
    compared: int
    """Pairs whose true similarity was computed."""
    not_compared: int
    """Pairs of kept texts in one bucket that were left out because it was too full; 0 means that none was."""


def near_duplicates(
    texts: Sequence[str], config: NearDuplicates, seed: int, apart: Sequence[str] | None = None
) -> Found:
    """Which texts stay: of each cluster of near-duplicates the first."""
    marks = _apart(texts, config.numbers_tell_apart, apart)
    shingles = Shingles.of(texts, config.shingle)
    search = _Search(shingles, config.threshold)
    search.drop_equal(marks)
    for keys in band_hashes(shingles, banding(config.threshold), seed, marks):
        search.drop_alike(keys)
    pairs = tuple(sorted(search.pairs, key=lambda pair: pair.removed))
    return Found(search.keep, pairs, search.compared, search.not_compared)


class _Search:
    """The state of one search: what is still kept, and what was found."""

    def __init__(self, shingles: Shingles, threshold: float) -> None:
        self.shingles, self.threshold = shingles, threshold
        self.keep = np.ones(len(shingles), dtype=np.bool_)
        self.comparable = shingles.sizes > 0
        """Texts without a word are like no other."""
        self.pairs: list[Pair] = []
        self.compared = self.not_compared = 0

    def drop_equal(self, marks: Hashes) -> None:
        """Remove texts with the same shingles as an earlier one: they would fill every bucket."""
        _, first, inverse = np.unique(self.shingles.whole() ^ marks, return_index=True, return_inverse=True)
        like = first[inverse]
        later = np.flatnonzero((like < np.arange(len(like))) & self.comparable)
        self._drop(like[later], later, np.ones(len(later)))

    def drop_alike(self, keys: Hashes) -> None:
        """Remove texts like an earlier one with the same key; full buckets again, until nothing goes any more."""
        members = np.flatnonzero(self.keep & self.comparable)
        while True:
            before = len(self.pairs)
            left, members = self._round(keys, members)
            if not left or len(self.pairs) == before:
                self.not_compared += left
                return

    def _round(self, keys: Hashes, members: Indices) -> tuple[int, Indices]:
        """Compare members with their predecessors of the same key, near ones first, as far as the budget goes.

        Returns how many pairs were left out, and the members, still kept, of the buckets that these are of.
        """
        members = members[np.argsort(keys[members], kind="stable")]
        own, budget = keys[members], max(_PAIRS_AT_LEAST, _PAIRS_A_TEXT * len(self.shingles))
        lag, later = 1, np.flatnonzero(own[1:] == own[:-1]) + 1
        while len(later) and budget > 0:
            budget -= self._compare(members[later - lag], members[later])
            lag += 1
            later = later[(later >= lag) & self.keep[members[later]]]
            later = later[own[later - lag] == own[later]]
        unfinished = np.isin(own, own[later]) & self.keep[members]
        _, sizes = np.unique(own[unfinished], return_counts=True)
        beyond = np.where(sizes > 1, np.maximum(sizes - lag, 1), 0)
        return int((beyond * (beyond + 1) // 2).sum()) if len(later) else 0, np.sort(members[unfinished])

    def _compare(self, first: Indices, second: Indices) -> int:
        """Remove the second of each pair that is alike; how many pairs had to be compared."""
        sizes = self.shingles.sizes
        small, large = np.minimum(sizes[first], sizes[second]), np.maximum(sizes[first], sizes[second])
        possible = self.keep[first] & self.keep[second] & (small >= self.threshold * large)
        first, second = first[possible], second[possible]
        similarity = self.shingles.jaccard(first, second)
        alike = similarity >= self.threshold
        self.compared += len(first)
        self._drop(first[alike], second[alike], similarity[alike])
        return len(first)

    def _drop(self, first: Indices, second: Indices, similarity: npt.NDArray[np.float64]) -> None:
        self.keep[second] = False
        found = zip(second.tolist(), first.tolist(), similarity.tolist(), strict=True)
        self.pairs += [Pair(*pair) for pair in found]


def _apart(texts: Sequence[str], numbers: bool, apart: Sequence[str] | None) -> Hashes:
    """(texts,) equal where nothing tells two texts apart."""
    marks = np.zeros(len(texts), dtype=np.uint64)
    for i, text in enumerate(texts):
        told = (*(_NUMBERS.findall(text) if numbers else ()), "\n", apart[i] if apart is not None else "")
        if len(told) > 2 or told[-1]:
            digest = blake2b(" ".join(told).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            marks[i] = int.from_bytes(digest)
    return marks
