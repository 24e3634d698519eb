"""Copying: what is to be said again stands in the question, in words that the ones before them do not give away."""

import collections

import pytest
from pydantic import ValidationError

from phases.dataset import SPLITS
from phases.tasks.collect import Items
from phases.tasks.config import TasksConfig
from phases.tasks.copying import CopyingConfig, copying_items
from phases.tasks.generate import make_items
from phases.tasks.item import Item, extract_answer

WANTED = {"train": 600, "validation": 60, "test": 60}
TEXT = {
    split: [f'{split}{n} "quoted" # a-word-of-more-than-sixteen {"x" * 17} end{n}' for n in range(10)]
    for split in SPLITS
}
WORDS_ONLY = CopyingConfig(numbers=0, letters=0)


def every(items: Items) -> list[Item]:
    return [item for split in SPLITS for item in items[split]]


def test_the_answer_stands_in_the_quotes() -> None:
    items = every(copying_items(CopyingConfig(), TEXT, WANTED, seed=0))
    assert len(items) == 720
    for item in items:
        assert item.prompt == f'repeat "{item.answer}"' and item.speciality == "copying"
        assert item.difficulty == len(item.answer.split()) and extract_answer(item.answer) == item.answer


def test_numbers_of_words_have_equal_shares() -> None:
    items = copying_items(CopyingConfig(words=4), TEXT, {"train": 2000, "validation": 0, "test": 0}, seed=0)["train"]
    counts = collections.Counter(item.difficulty for item in items)
    # Single words repeat, and what repeats is passed over: the longer ones have their place.
    assert set(counts) == {1, 2, 3, 4} and counts[1] < 500
    assert abs(counts[3] - counts[4]) < 100


def test_words_come_from_the_splits_own_text() -> None:
    items = copying_items(WORDS_ONLY, TEXT, WANTED, seed=0)
    for split in SPLITS:
        words = {word for item in items[split] for word in item.answer.split()}
        assert words == {f"{split}{n}" for n in range(10)} | {f"end{n}" for n in range(10)}


def test_shares_of_numbers_and_letters() -> None:
    only_numbers = copying_items(CopyingConfig(numbers=1), TEXT, WANTED, seed=0)["train"]
    assert all(word.isdigit() for item in only_numbers for word in item.answer.split())
    only_letters = copying_items(CopyingConfig(numbers=0, letters=1), TEXT, WANTED, seed=0)["train"]
    assert all(word.isalpha() and len(word) <= 6 for item in only_letters for word in item.answer.split())
    without_text = copying_items(WORDS_ONLY, {}, WANTED, seed=0)["train"]
    assert len(without_text) == 600 and all(word.isalpha() for item in without_text for word in item.answer.split())


def test_same_seed_same_items_and_none_in_two_splits() -> None:
    first, again, other = (copying_items(CopyingConfig(), TEXT, WANTED, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    keys = [item.key for item in every(first)]
    assert len(set(keys)) == len(keys)


def test_draws_end_where_there_is_nothing_new() -> None:
    few = copying_items(CopyingConfig(words=1, numbers=0, letters=0), {"train": ["only two"]}, WANTED, seed=0)
    assert sorted(item.answer for item in few["train"]) == ["only", "two"]


def test_none_to_train_on_means_none_at_all() -> None:
    config = TasksConfig(
        reasoning_train_items=20, memory_train_items=20, copying_train_items=0, validation_items=4, test_items=4,
        choice_items=0, needle={"share": 0},
    )  # fmt: skip
    assert not [item for item in every(make_items(config, {}, seed=0)) if item.speciality == "copying"]
    with_copies = make_items(config.model_copy(update={"copying_train_items": 9}), {}, seed=0)
    counts = {split: sum(item.speciality == "copying" for item in with_copies[split]) for split in SPLITS}
    assert counts == {"train": 9, "validation": 4, "test": 4}


def test_no_words_are_refused() -> None:
    with pytest.raises(ValidationError, match="words"):
        CopyingConfig(words=0)
