"""Does held-out text stand in the training data? An n-gram check, in the manner of GPT-3 (arXiv 2005.14165, app. C).

The unit is a held-out passage: its overlap is the share of its word n-grams that occur anywhere in training text.
Above `max_overlap` it counts as leaked; a passage too short for an n-gram counts as leaked when its words stand in
training text in one piece. Decontamination drops the *training* passages that the overlap comes from, so that the
held-out sample stays as the hash drew it; the check that follows looks at the packed training blocks, knows nothing of
what was dropped, and fails the run.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from phases.errors import LeakageError

# Words, and single characters of scripts that are written without spaces.
_WORDS = re.compile(r"[぀-ヿ㐀-鿿가-힯]|\w+")
SHORTEST = 4
"""Words below which a text says nothing about leaking (`if __name__ == "__main__":`)."""
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


def overlaps(held_out: Sequence[str], training: Sequence[str], n: int) -> npt.NDArray[np.float64]:
    """(texts,) the share of each held-out text's n-grams that stand in training text; a short text has 0 or 1."""
    grams = Grams(n)
    known = _union([grams.of(text) for text in training])
    shares = np.array([_share(grams.of(text), known) for text in held_out])
    short = {i: phrase for i, text in enumerate(held_out) if (phrase := _short_phrase(text, n))}
    lines = [_phrase(text) for text in training] if short else []
    for i, phrase in short.items():
        shares[i] = float(any(phrase in line for line in lines))
    return shares


def _phrase(text: str) -> str:
    """All words, in one spelling, with a space before and after."""
    return f" {' '.join(_WORDS.findall(text.casefold()))} "


def _short_phrase(text: str, n: int) -> str | None:
    """The phrase of a text with fewer than n words; None for longer ones and for less than `SHORTEST` words."""
    phrase = _phrase(text)
    return phrase if SHORTEST <= phrase.count(" ") - 1 < n else None


def _union(parts: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.uint64)


def _share(grams: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64]) -> float:
    return float(_member(grams, known).mean()) if len(grams) else 0.0


def _member(values: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(values), dtype=np.bool_)
    place = np.searchsorted(known, values).clip(max=len(known) - 1)
    found: npt.NDArray[np.bool_] = known[place] == values
    return found


def leaking_passages(held_out: Sequence[str], training: Sequence[str], n: int, max_overlap: float) -> set[int]:
    """Indices of the training texts that share an n-gram with a held-out text whose overlap is above `max_overlap`."""
    grams = Grams(n)
    by_text = [grams.of(text) for text in training]
    known = _union(by_text)
    leaked = [own for own in map(grams.of, held_out) if _share(own, known) > max_overlap]
    suspects = _union(leaked)
    found = {i for i, own in enumerate(by_text) if _member(own, suspects).any()}
    phrases = [phrase for text in held_out if (phrase := _short_phrase(text, n))]
    if phrases:
        lines = [_phrase(text) for text in training]
        found |= {i for i, line in enumerate(lines) if any(phrase in line for phrase in phrases)}
    return found


def check_leakage(held_out: Sequence[str], training: Sequence[str], n: int, max_overlap: float) -> float:
    """The largest overlap of a held-out text with training text. Raises `LeakageError` when it is too large."""
    shares = overlaps(held_out, training, n)
    worst = int(shares.argmax()) if len(shares) else 0
    if len(shares) and shares[worst] > max_overlap:
        start = " ".join(held_out[worst].split())[:60]
        raise LeakageError(
            f"data: {int((shares > max_overlap).sum())} held-out passages stand in training text (worst: "
            f"{shares[worst]:.0%} of the {n}-word pieces of '{start}…'); set data.decontaminate=true or remove repeats"
        )
    return float(shares[worst]) if len(shares) else 0.0
