"""Needle in a haystack: a fact at a random depth of real text, then a question for it (RULER, arXiv 2404.06654).

    … that is The code of K is 42. why the … What is the code of K?   →  42

The haystack comes from the item's own split, so no held-out text reaches the training data this way. Other needles
with other names may be hidden too, so that finding any needle is not enough.
"""

import random
import string
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from phases.dataset import SPLITS, Split
from phases.errors import DataError
from phases.strict import StrictModel
from phases.tasks.collect import Counts, Items, seeded
from phases.tasks.item import Item
from phases.tasks.windows import find_window, word_starts


class NeedleConfig(StrictModel):
    """How needle items are made."""

    share: float = Field(0.05, ge=0, le=1)
    """Share of the memory items that are needles; the others are recall."""
    words: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = Field((20, 40, 60), min_length=1)
    """Words of text around the needle, in equal shares; this is the difficulty."""
    characters_per_word: float = Field(7.0, ge=2)
    """Longer stretches of text are passed over: they would not fit in a short context."""
    distractors: int = Field(1, ge=0, le=20)
    """Needles with other names in the same text."""


def needle_items(config: NeedleConfig, passages: Mapping[Split, Sequence[str]], wanted: Counts, seed: int) -> Items:
    """Needle items for each split, from that split's passages. Raises `DataError` when no text is long enough."""
    return {split: _of_split(config, passages.get(split, ()), split, wanted.get(split, 0), seed) for split in SPLITS}


def _of_split(config: NeedleConfig, passages: Sequence[str], split: Split, count: int, seed: int) -> list[Item]:
    rng = seeded(seed, "needle", split)
    items = []
    for index in range(count):
        words = config.words[index % len(config.words)]
        found = find_window(passages, words, int(words * config.characters_per_word), rng)
        if found is None:
            raise DataError(
                f"tasks.needle: the {split} text has no stretch of {words} words within "
                f"{int(words * config.characters_per_word)} characters; lower tasks.needle.words, raise "
                "characters_per_word, or set tasks.needle.share to 0"
            )
        items.append(_item(found[1], words, config.distractors, rng))
    return items


def _item(haystack: str, words: int, distractors: int, rng: random.Random) -> Item:
    names = rng.sample(string.ascii_uppercase, distractors + 1)
    values = [f"{value:02d}" for value in rng.sample(range(100), distractors + 1)]
    needles = [f"The code of {name} is {value}." for name, value in zip(names, values, strict=True)]
    prompt = f"{_hide(needles, haystack, rng)}\nWhat is the code of {names[0]}?"
    return Item(task="needle", speciality="memory", prompt=prompt, answer=values[0], difficulty=words)


def _hide(needles: Sequence[str], text: str, rng: random.Random) -> str:
    """Each needle before a random word of the text or at its end, whatever the others' places."""
    end = len(text)
    places = [*word_starts(text), end]
    # From the back, so that what is inserted moves no place that is still to come.
    for place, needle in sorted(((rng.choice(places), needle) for needle in needles), reverse=True):
        padded = f" {needle}" if place == end else f"{needle} "
        text = text[:place] + padded + text[place:]
    return text
