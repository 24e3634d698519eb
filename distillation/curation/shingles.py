"""Texts as sets of hashed word shingles, in flat arrays: what near-duplicates are compared by.

A shingle is `size` consecutive tokens; a token is a word or one symbol, so that `3 + 4` and `3 - 4` differ. A text that
is shorter than a shingle is one shingle. A set is a sorted run of 48-bit numbers in one array for all texts: 80 words
take 0.6 KB, no Python object stands for a document, and whole sets are compared by numpy. 2⁻⁴⁸ is the chance that two
different shingles are taken for the same.
"""

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

_TOKENS = re.compile(r"[぀-ヿ㐀-鿿가-힯]|\w+|[^\w\s]")
_SYMBOLS = string.punctuation.replace("_", "")
_CONTROLS = bytes(c for c in range(128) if not chr(c).isprintable() and not chr(c).isspace())
_AT_ONCE = 20_000
"""Texts that are hashed in one go: their places need less than the 16 bits that a sort key has for them."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
_BITS = np.uint64(48)
_LOW = np.uint64(2**48 - 1)
_PAD = np.uint64(2**64 - 1)
_REMEMBERED = 2_000_000
"""Distinct words whose numbers are kept: some 300 MB."""


def tokens(text: str) -> list[str]:
    """Words and single symbols in one case; characters of scripts without spaces stand for themselves."""
    text = text.casefold()
    if not text.isascii() or len(text.encode().translate(None, _CONTROLS)) < len(text):
        return _TOKENS.findall(text)
    for symbol in _SYMBOLS:
        if symbol in text:
            text = text.replace(symbol, f" {symbol} ")
    return text.split()


def scramble(values: Hashes) -> Hashes:
    """splitmix64's finaliser (Steele, Lea and Flood, 2014): neighbouring numbers become unrelated ones."""
    values = (values + np.uint64(1)) * _ODD
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def combine(columns: Hashes) -> Hashes:
    """(rows,) one hash a row of (rows, n) numbers; their order counts."""
    total = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        total = scramble(total * _ODD + column)
    return total


@dataclass(frozen=True)
class Shingles:
    """Sets of shingles: that of text i is `values[starts[i] : starts[i + 1]]`, sorted, each value below 2⁴⁸."""

    values: Hashes
    starts: Indices
    size: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> Indices:
        """(texts,) how many distinct shingles each has."""
        return np.diff(self.starts)

    @classmethod
    def of(cls, texts: Sequence[str], size: int) -> "Shingles":
        """The shingles of texts; those of a text do not depend on the others."""
        vocabulary: dict[str, int] = {}
        values, counts = [], []
        for first in range(0, len(texts), _AT_ONCE):
            found, lengths = _sets(texts[first : first + _AT_ONCE], size, vocabulary)
            values.append(found)
            counts.append(lengths)
        starts = np.concatenate([[0], *counts]).cumsum().astype(np.int64)
        return cls(np.concatenate([np.zeros(0, np.uint64), *values]), starts, size)

    def whole(self) -> Hashes:
        """(texts,) one hash a set: equal sets have equal ones."""
        sums = np.zeros(len(self), dtype=np.uint64)
        filled = self.sizes > 0
        if filled.any():
            sums[filled] = np.add.reduceat(scramble(self.values), self.starts[:-1][filled])
        return sums

    def jaccard(self, first: Indices, second: Indices) -> npt.NDArray[np.float64]:
        """(pairs,) the true Jaccard similarity |A ∩ B| / |A ∪ B| of pairs of texts; two empty sets have 1."""
        result = np.ones(len(first), dtype=np.float64)
        both = self.sizes[first] + self.sizes[second]
        for part in _parts(both, cells=2_000_000):
            shared = self._shared(first[part], second[part])
            union = both[part] - shared
            result[part] = np.divide(shared, union, out=np.ones(len(part)), where=union > 0)
        return result

    def _shared(self, first: Indices, second: Indices) -> Indices:
        """(pairs,) sizes of intersections: sorted together, a shared value stands twice."""
        rows = np.concatenate([self._padded(first), self._padded(second)], axis=1)
        rows.sort(axis=1)
        twice = (rows[:, 1:] == rows[:, :-1]) & (rows[:, 1:] != _PAD)
        shared: Indices = twice.sum(axis=1)
        return shared

    def _padded(self, texts: Indices) -> Hashes:
        """(texts, longest) sets as rows."""
        places = np.arange(max(1, int(self.sizes[texts].max())))
        inside = places < self.sizes[texts][:, None]
        rows = np.full(inside.shape, _PAD)
        rows[inside] = self.values[(self.starts[texts][:, None] + places)[inside]]
        return rows


def _parts(lengths: Indices, cells: int) -> Iterator[Indices]:
    """Places from the longest on, in parts whose padded matrix has `cells` cells at most (or one row)."""
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(order):
        last = first + max(1, cells // max(1, int(lengths[order[first]])))
        yield order[first:last]
        first = last


def _sets(texts: Sequence[str], size: int, vocabulary: dict[str, int]) -> tuple[Hashes, Indices]:
    """Sorted distinct shingles of some texts in one array, and how many each text has."""
    words: list[int] = []
    lengths = np.zeros(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        found = tokens(text)
        words += [vocabulary.get(word) or word_number(word, vocabulary) for word in found]
        words += [0] * (size - len(found) if found else 0)
        lengths[i] = max(size, len(found)) if found else 0
    owner = np.repeat(np.arange(len(texts), dtype=np.uint64), lengths)
    if len(words) < size:
        return np.zeros(0, dtype=np.uint64), lengths
    windows = combine(np.lib.stride_tricks.sliding_window_view(np.array(words, dtype=np.uint64), size))
    inside = owner[: len(windows)] == owner[size - 1 :]
    keys = np.sort((owner[: len(windows)][inside] << _BITS) | (windows[inside] & _LOW))
    keys = keys[np.append(True, keys[1:] != keys[:-1])]  # numpy's unique takes a hundred times as long
    return keys & _LOW, np.bincount((keys >> _BITS).astype(np.int64), minlength=len(texts))


def word_number(word: str, vocabulary: dict[str, int]) -> int:
    """A word's own 63-bit number; the vocabulary only saves computing it again."""
    if len(vocabulary) >= _REMEMBERED:
        vocabulary.clear()
    number = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1 | 1
    vocabulary[word] = number
    return number
