"""Does held-out text stand in the training data? An n-gram check, in the manner of GPT-3 (arXiv 2005.14165, app. C).

The unit is a held-out passage: its overlap is the share of its word n-grams that occur anywhere in training text.
Above `max_overlap` it counts as leaked. Decontamination drops the *training* passages that the overlap comes from, so
that the held-out sample stays as the hash drew it; the check that follows looks at the packed training blocks, knows
nothing of what was dropped, and fails the run.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from phases.errors import LeakageError

# Words, and single characters of scripts that are written without spaces.
_WORDS = re.compile(r"[぀-ヿ㐀-鿿가-힯]|\w+")
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class Grams:
    """Hashes of word n-grams under one shared vocabulary."""

    n: int
    vocabulary: dict[str, int] = field(default_factory=dict)

    def of(self, text: str) -> npt.NDArray[np.uint64]:
        """(words − n + 1,) 64-bit hashes, in order; empty for a text shorter than n words."""
        words = _WORDS.findall(text.casefold())
        ids = [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in words]
        values = _scramble(np.array(ids, dtype=np.uint64))
        count = len(values) - self.n + 1
        if count <= 0:
            return np.zeros(0, dtype=np.uint64)
        total = np.zeros(count, dtype=np.uint64)
        for k in range(self.n):
            total = total * _BASE + values[k : k + count]
        return total


def _scramble(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finaliser: neighbouring ids become unrelated words."""
    values = (values + np.uint64(1)) * _BASE
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    return values ^ (values >> np.uint64(27))


def overlaps(
    held_out: Sequence[str], training: Iterable[str], n: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint64]]:
    """Each held-out text's share of n-grams that stand in training text, and the sorted training n-grams."""
    grams = Grams(n)
    parts = [grams.of(text) for text in training]
    known = np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.uint64)
    shares = [_share(grams.of(text), known) for text in held_out]
    return np.array(shares), known


def _share(grams: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64]) -> float:
    return float(_member(grams, known).mean()) if len(grams) else 0.0


def _member(values: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(values), dtype=np.bool_)
    place = np.searchsorted(known, values).clip(max=len(known) - 1)
    found: npt.NDArray[np.bool_] = known[place] == values
    return found


def leaking_passages(held_out: Sequence[str], training: Sequence[str], n: int, max_overlap: float) -> set[int]:
    """Indices of the training texts that hold an n-gram of a held-out text whose overlap is above `max_overlap`."""
    grams = Grams(n)
    by_text = [grams.of(text) for text in training]
    known = np.unique(np.concatenate(by_text)) if by_text else np.zeros(0, dtype=np.uint64)
    leaked = [g for g in map(grams.of, held_out) if _share(g, known) > max_overlap]
    if not leaked:
        return set()
    suspects = np.unique(np.concatenate(leaked))
    return {i for i, own in enumerate(by_text) if _member(own, suspects).any()}


def check_leakage(held_out: Sequence[str], blocks: Iterable[str], n: int, max_overlap: float) -> float:
    """The largest overlap of a held-out text with the training blocks. Raises `LeakageError` when it is too large."""
    shares, _ = overlaps(held_out, blocks, n)
    worst = int(shares.argmax()) if len(shares) else 0
    if len(shares) and shares[worst] > max_overlap:
        start = " ".join(held_out[worst].split())[:60]
        raise LeakageError(
            f"data: {int((shares > max_overlap).sum())} held-out passages stand in the training text (worst: "
            f"{shares[worst]:.0%} of the {n}-grams of '{start}…'); set data.decontaminate=true or remove the repeats"
        )
    return float(shares[worst]) if len(shares) else 0.0
