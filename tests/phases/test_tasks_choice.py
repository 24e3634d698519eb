"""Cloze items: the answer continues the context, the rest do not, and its place says nothing."""

import itertools

import pytest

from phases.errors import DataError
from phases.tasks.choice import ChoiceConfig, choice_items

CONFIG = ChoiceConfig(context_words=10, continuation_words=3, characters_per_word=20)


def text(count: int = 8, words: int = 60) -> dict[str, list[str]]:
    """Passages whose words count up, so that what follows what can be read off."""
    return {s: [" ".join(f"{s[0]}{p}.{w}" for w in range(words)) for p in range(count)] for s in ("validation", "test")}


def test_only_the_answer_continues_the_context() -> None:
    passages = text()
    items = choice_items(CONFIG, passages, 100, seed=0)
    assert items["train"] == []
    for split in ("validation", "test"):
        assert len(items[split]) == 100
        for item in items[split]:
            follows = [c for c in item.choices if any(f"{item.prompt} {c}" in p for p in passages[split])]
            assert follows == [item.answer]
            assert (item.task, item.speciality, item.difficulty) == ("cloze", "choice", 10)


def test_choices_are_four_stretches_of_four_passages() -> None:
    for item in choice_items(CONFIG, text(), 50, seed=0)["test"]:
        assert len({choice.split(".")[0] for choice in item.choices}) == 4
        assert {len(choice.split()) for choice in item.choices} == {3}


def test_the_answers_place_is_uniform() -> None:
    items = choice_items(CONFIG, text(40), 1000, seed=0)["test"]
    places = [item.choices.index(item.answer) for item in items]
    assert all(180 < places.count(k) < 320 for k in range(4))  # 250 ± 13.7 each


def test_guessing_by_length_stays_at_chance() -> None:
    """Words of random lengths: a rule that looks at the choices only must not find the answer."""
    words = itertools.cycle(["a", "bb", "ccc", "dddd", "eeeee", "ffffff", "ggggggg"])
    passages = {
        s: [" ".join(f"{next(words)}{p}{w}" for w in range(80)) for p in range(40)] for s in ("validation", "test")
    }
    items = choice_items(CONFIG, passages, 1000, seed=0)["test"]
    longest = [max(item.choices, key=len) == item.answer for item in items]
    assert 180 < sum(longest) < 320


def test_deterministic() -> None:
    assert choice_items(CONFIG, text(), 20, seed=4) == choice_items(CONFIG, text(), 20, seed=4)
    assert choice_items(CONFIG, text(), 20, seed=4) != choice_items(CONFIG, text(), 20, seed=5)


@pytest.mark.parametrize("passages", [{}, text(count=3), text(words=12)], ids=["none", "three", "short"])
def test_too_little_text(passages: dict[str, list[str]]) -> None:
    with pytest.raises(DataError, match=r"the validation text gives 0 of 20 items.*tasks.choice_items to 0"):
        choice_items(CONFIG, passages, 20, seed=0)
    assert choice_items(CONFIG, passages, 0, seed=0)["test"] == []
