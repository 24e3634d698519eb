"""Stretches of real text of a given number of words, as it stands: line breaks and indentation stay."""

import random
import re
from collections.abc import Sequence

_WORD = re.compile(r"\S+")


def window(text: str, words: int, characters: int, rng: random.Random) -> str | None:
    """A random stretch of exactly `words` words; None when the text is too short or the stretch is too long.

    `characters` bounds the stretch: a "word" of a source file can be a line of dashes or a base64 blob.
    """
    spans = [match.span() for match in _WORD.finditer(text)]
    if len(spans) < words:
        return None
    first = rng.randrange(len(spans) - words + 1)
    start, end = spans[first][0], spans[first + words - 1][1]
    return text[start:end] if end - start <= characters else None


def find_window(
    passages: Sequence[str], words: int, characters: int, rng: random.Random, tries: int = 100
) -> tuple[int, str] | None:
    """The index of a random passage and a stretch of it; None when `tries` draws found none that fits."""
    for _ in range(tries if passages else 0):
        index = rng.randrange(len(passages))
        found = window(passages[index], words, characters, rng)
        if found is not None:
            return index, found
    return None


def word_starts(text: str) -> list[int]:
    """Where each word begins."""
    return [match.start() for match in _WORD.finditer(text)]
