"""Recall and needles: the answer is found again by reading the prompt."""

import re

import pytest
from pydantic import ValidationError

from phases.dataset import SPLITS
from phases.errors import DataError
from phases.tasks.collect import Items
from phases.tasks.item import Item
from phases.tasks.needle import NeedleConfig, needle_items
from phases.tasks.recall import FILLER, RecallConfig, recall_items

WANTED = {"train": 400, "validation": 40, "test": 40}
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


def passages(words: int = 120) -> dict[str, list[str]]:
    """Text in which every word names its split and passage."""
    return {s: [" ".join(f"{s[:2]}{NAMES[p]}{w}" for w in range(words)) for p in range(6)] for s in SPLITS}


def pairs_of(item: Item) -> tuple[dict[str, str], list[str], int]:
    context, asked = item.prompt.split("?")
    parts = [part.split("=") for part in context.split(";")]
    pairs = [part for part in parts if len(part) == 2]
    return dict(pairs), asked.split(";"), len(parts)


def every(items: Items) -> list[Item]:
    return [item for split in SPLITS for item in items[split]]


@pytest.mark.parametrize("digits", [1, 2])
def test_recall_answers_by_reading(digits: int) -> None:
    for item in every(recall_items(RecallConfig(digits=digits), WANTED, seed=0)):
        pairs, asked, _ = pairs_of(item)
        assert item.answer == ";".join(f"{key}={pairs[key]}" for key in asked)
        assert len(pairs) == item.difficulty  # keys differ
        assert re.fullmatch(rf"([a-zA-Z]=\d{{{digits}}};?)+\?([a-zA-Z];?)+", item.prompt)


def test_recall_asks_once_in_held_out_items() -> None:
    items = recall_items(RecallConfig(pairs=(2, 8), max_queries=4), WANTED, seed=0)
    assert {len(pairs_of(item)[1]) for split in SPLITS[1:] for item in items[split]} == {1}
    assert {len(pairs_of(item)[1]) for item in items["train"]} == {1, 2, 3, 4}


def test_recall_shares_the_difficulties() -> None:
    items = recall_items(RecallConfig(pairs=(2, 8)), WANTED, seed=0)
    assert [len(items[split]) for split in SPLITS] == list(WANTED.values())
    share = sum(item.difficulty == 2 for item in items["train"]) / 400
    assert 0.45 < share < 0.55


def test_recall_queries_every_place_alike() -> None:
    items = recall_items(RecallConfig(pairs=(4,), digits=2), {"train": 0, "validation": 0, "test": 2000}, seed=0)[
        "test"
    ]
    places = [list(pairs_of(item)[0]).index(pairs_of(item)[1][0]) for item in items]
    assert all(abs(places.count(k) - 500) < 100 for k in range(4))  # five standard deviations


def test_recall_filler_is_seeded_and_never_a_key() -> None:
    config = RecallConfig(pairs=(2,), filler=5)
    items = recall_items(config, WANTED, seed=0)
    assert items == recall_items(config, WANTED, seed=0) != recall_items(config, WANTED, seed=1)
    assert all(pairs_of(item)[2] == 7 and item.difficulty == 2 for item in every(items))
    assert all(len(word) > 1 for word in FILLER)


def test_equal_pairs_never_stand_in_two_splits() -> None:
    config = RecallConfig(pairs=(1,), digits=2, max_queries=1)  # 5,200 contexts, drawn 20,000 times
    items = recall_items(config, {"train": 4000, "validation": 500, "test": 500}, seed=0)
    sets = {s: {frozenset(pairs_of(item)[0].items()) for item in items[s]} for s in SPLITS}
    assert sum(map(len, sets.values())) == len(set.union(*sets.values()))


def test_more_pairs_than_letters_are_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 52"):
        RecallConfig(pairs=(53,))


def test_needle_answers_by_reading() -> None:
    for item in every(needle_items(NeedleConfig(characters_per_word=20), passages(), WANTED, seed=0)):
        name = re.search(r"What is the code of (\w)\?$", item.prompt)
        assert name is not None
        codes = dict(re.findall(r"The code of (\w) is (\d\d)\.", item.prompt))
        assert len(codes) == 2 and codes[name[1]] == item.answer


def test_needle_leaves_the_text_of_its_own_split() -> None:
    text = passages()
    items = needle_items(NeedleConfig(characters_per_word=20, words=(30,)), text, WANTED, seed=0)
    for split in SPLITS:
        for item in items[split]:
            haystack = re.sub(r"(^| )The code of \w is \d\d\.", "", item.prompt.rsplit("\n", 1)[0]).strip()
            assert len(haystack.split()) == 30 == item.difficulty
            assert any(haystack in passage for passage in text[split])


def test_needle_depth_is_uniform() -> None:
    config = NeedleConfig(characters_per_word=20, words=(9,), distractors=0)
    items = needle_items(config, passages(), {"train": 1000}, seed=0)["train"]
    depths = [len(item.prompt.split("The code of")[0].split()) for item in items]
    assert all(60 < depths.count(k) < 140 for k in range(10))  # 100 ± 9.5 each


def test_many_needles_stay_whole() -> None:
    config = NeedleConfig(characters_per_word=20, words=(3,), distractors=6)
    for item in needle_items(config, passages(), {"train": 100}, seed=0)["train"]:
        assert len(re.findall(r"(?<!\S)The code of \w is \d\d\.(?!\S)", item.prompt)) == 7


def test_needle_says_what_to_do_without_text() -> None:
    with pytest.raises(DataError, match=r"the train text has no stretch of 300 words .*tasks.needle.share to 0"):
        needle_items(NeedleConfig(words=(300,)), passages(), WANTED, seed=0)
    with pytest.raises(DataError, match="the test text has no stretch"):
        needle_items(NeedleConfig(), {}, {"test": 1}, seed=0)
