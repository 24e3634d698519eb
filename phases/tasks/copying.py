"""Copying: words that do not belong together, to be said again (the copying task of Hochreiter & Schmidhuber 1997).

    repeat "tearDown 4071 qvz the"  →  tearDown 4071 qvz the

No word can be guessed from the one before it, so every token has to be looked up where it stood: that takes induction
heads (arXiv 2209.11895), which running text and short tasks alone do not bring about in a small budget. Whoever fills
in the arguments of a call, or says what came back from it, copies. The words stand in quotes because after a quote, and
at the beginning, a word is the same token; after a space it is another.
"""

import random
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import Field

from phases.dataset import SPLITS, Split
from phases.strict import StrictModel
from phases.tasks.collect import Counts, Items, seeded
from phases.tasks.item import MARK, Item

_WORD = re.compile(r'(?<!\S)[^\s"\\]{1,16}(?!\S)')


class CopyingConfig(StrictModel):
    """How copying items are made."""

    words: int = Field(12, ge=1)
    """Most words of an item; every number up to it is as likely. This is the difficulty."""
    numbers: float = Field(0.1, ge=0, le=1)
    """Share of the words that are numbers."""
    letters: float = Field(0.1, ge=0, le=1)
    """Share of the others that are letters without meaning; the rest are words of the text."""
    frequent: int = Field(1000, ge=1)
    """The text's most frequent words are drawn from, each as likely: most of them are one token, which the token before
    says nothing about. That is learnt three times as fast as rare words in several pieces (docs/log.md)."""
    rare: float = Field(0.2, ge=0, le=1)
    """Share of the words of the text that are drawn from all its distinct words instead."""


def copying_items(config: CopyingConfig, passages: Mapping[Split, Sequence[str]], wanted: Counts, seed: int) -> Items:
    """Distinct items for each split, with words from that split's passages."""
    taken: set[str] = set()
    found: Items = {}
    for split in SPLITS:
        # A mark in the answer would be read as the end of worked steps.
        counts = Counter(w for text in passages.get(split, ()) for w in _WORD.findall(text) if MARK[0] not in w)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        rng = seeded(seed, "copying", split)
        found[split] = []
        # Single words are soon used up: draws that repeat are passed over, and there is an end to them.
        for _ in range(3 * wanted.get(split, 0)):
            if len(found[split]) == wanted.get(split, 0):
                break
            said = [_word(config, ranked, rng) for _ in range(rng.randint(1, config.words))]
            text = " ".join(said)
            if text not in taken:
                taken.add(text)
                found[split].append(_item(text, len(said)))
    return found


def _item(text: str, words: int) -> Item:
    return Item(task="copy", speciality="copying", prompt=f'repeat "{text}"', answer=text, difficulty=words)


def _word(config: CopyingConfig, ranked: Sequence[str], rng: random.Random) -> str:
    if rng.random() < config.numbers:
        return str(rng.randrange(10 ** rng.randint(1, 5)))
    if not ranked or rng.random() < config.letters:
        return "".join(rng.choices(string.ascii_letters, k=rng.randint(1, 6)))
    return rng.choice(ranked if rng.random() < config.rare else ranked[: config.frequent])
