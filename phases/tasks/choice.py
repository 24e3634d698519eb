"""Four-way cloze on held-out text: which of four stretches comes next?

The true continuation stands among three stretches of the same length from other passages of the same split. It
measures language modelling as multiple choice (chance 25 %), needs no outside data, and exists for held-out splits
only: nothing is trained on it.
"""

import random
from collections.abc import Mapping, Sequence

from pydantic import Field

from phases.dataset import Split
from phases.errors import DataError
from phases.strict import StrictModel
from phases.tasks.collect import Items, seeded
from phases.tasks.item import Item
from phases.tasks.windows import find_window, word_starts

CHOICES = 4


class ChoiceConfig(StrictModel):
    """How cloze items are made."""

    context_words: int = Field(40, ge=1)
    """Words of text before the gap."""
    continuation_words: int = Field(12, ge=1)
    """Words of each choice."""
    characters_per_word: float = Field(9.0, ge=2)
    """Longer stretches of text are passed over."""


def choice_items(config: ChoiceConfig, passages: Mapping[Split, Sequence[str]], count: int, seed: int) -> Items:
    """`count` cloze items for validation and for test. Raises `DataError` when the text does not suffice."""
    return {
        "train": [],
        "validation": _of_split(config, passages.get("validation", ()), "validation", count, seed),
        "test": _of_split(config, passages.get("test", ()), "test", count, seed),
    }


def _of_split(config: ChoiceConfig, passages: Sequence[str], split: Split, count: int, seed: int) -> list[Item]:
    rng = seeded(seed, "choice", split)
    items: dict[str, Item] = {}
    for _ in range(4 * count):
        item = _item(config, passages, rng) if len(items) < count else None
        if item is None:
            break
        items.setdefault(item.key, item)
    if len(items) * 2 < count:
        raise DataError(
            f"tasks.choice: the {split} text gives {len(items)} of {count} items of "
            f"{config.context_words + config.continuation_words} words; give more text, lower "
            "tasks.choice.context_words, or set tasks.choice_items to 0"
        )
    return list(items.values())


def _item(config: ChoiceConfig, passages: Sequence[str], rng: random.Random) -> Item | None:
    """One item; None when no passage is long enough or there are fewer than four to choose from."""
    words = config.context_words + config.continuation_words
    found = find_window(passages, words, int(words * config.characters_per_word), rng)
    if found is None:
        return None
    index, text = found
    gap = word_starts(text)[config.context_words]
    prompt, answer = text[:gap].rstrip(), text[gap:]
    others = _distractors(config, passages, index, answer, rng)
    if others is None:
        return None
    choices = [answer, *others]
    rng.shuffle(choices)
    return Item(
        task="cloze",
        speciality="choice",
        prompt=prompt,
        answer=answer,
        difficulty=config.context_words,
        choices=tuple(choices),
    )


def _distractors(
    config: ChoiceConfig, passages: Sequence[str], index: int, answer: str, rng: random.Random
) -> list[str] | None:
    """Three distinct stretches from three other passages; None when a hundred draws do not find them."""
    words = config.continuation_words
    used, others = {index}, [answer]
    for _ in range(100):
        found = find_window(passages, words, int(words * config.characters_per_word), rng)
        if found is not None and found[0] not in used and found[1] not in others:
            used.add(found[0])
            others.append(found[1])
        if len(others) == CHOICES:
            return others[1:]
    return None
