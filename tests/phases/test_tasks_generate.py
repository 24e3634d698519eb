"""All items together: deterministic, mixed, and no question on two sides of the fence."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phases.dataset import SPLITS
from phases.errors import ConfigError, DataError
from phases.tasks.collect import Draw, apportion, fill, require_enough, split_by_content, without_shared
from phases.tasks.config import TasksConfig
from phases.tasks.generate import make_items
from phases.tasks.item import Item
from phases.tasks.needle import NeedleConfig
from phases.tasks.reasoning import ReasoningTask

SMALL = TasksConfig(
    reasoning_train_items=300, memory_train_items=200, validation_items=60, test_items=60, choice_items=10
)


def passages() -> dict[str, list[str]]:
    return {s: [" ".join(f"{s[:2]}{p}{w}" for w in range(90)) for p in range(8)] for s in SPLITS}


def item(prompt: str, answer: str = "1") -> Item:
    return Item(task="t", speciality="reasoning", prompt=prompt, answer=answer)


def test_counts_and_specialities() -> None:
    items = make_items(SMALL, passages(), seed=0)
    counts = {
        s: {k: sum(i.speciality == k for i in items[s]) for k in ("reasoning", "memory", "choice")} for s in SPLITS
    }
    assert counts["train"] == {"reasoning": 300, "memory": 200, "choice": 0}
    assert counts["validation"] == counts["test"] == {"reasoning": 60, "memory": 60, "choice": 10}


def test_no_key_stands_twice() -> None:
    items = make_items(TasksConfig(choice_items=0, needle=NeedleConfig(share=0)), {}, seed=0)
    keys = [i.key for split in SPLITS for i in items[split]]
    assert len(keys) == len(set(keys)) > 40_000


def test_any_prefix_is_mixed() -> None:
    items = make_items(SMALL, passages(), seed=0)
    assert len({i.task for i in items["test"][:60]}) >= 8


@pytest.mark.slow
def test_deterministic_in_every_process() -> None:
    """The order of sets differs between processes; nothing that is drawn may depend on it."""
    script = (
        "import sys; from phases.tasks.config import TasksConfig as C; from phases.tasks.generate import make_items\n"
        "items = make_items(C.model_validate_json(sys.argv[1]), {}, seed=7)\n"
        "print(*(i.key + i.answer for s in items for i in items[s]), sep='\\n')"
    )
    config = SMALL.model_copy(update={"choice_items": 0, "needle": NeedleConfig(share=0)})
    command = [sys.executable, "-c", script, config.model_dump_json()]
    runs = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": n}, capture_output=True, text=True, check=True)
        for n in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout and runs[0].stdout.count("\n") == 740


def test_seeds_differ() -> None:
    assert make_items(SMALL, passages(), seed=0)["train"] != make_items(SMALL, passages(), seed=1)["train"]


def test_weights_are_kept() -> None:
    tasks = (ReasoningTask(name="gcd", weight=3), ReasoningTask(name="count_bits"))
    config = SMALL.model_copy(update={"reasoning": tasks})
    train = make_items(config, passages(), seed=0)["train"]
    assert sum(i.task == "gcd" for i in train) == 225


def test_generated_items_can_be_left_out() -> None:
    config = TasksConfig(
        reasoning=(), memory_train_items=0, copying_train_items=0, validation_items=0, test_items=0, choice_items=0
    )
    assert make_items(config, {}, seed=0) == {split: [] for split in SPLITS}


def test_too_few_distinct_questions_name_the_generator() -> None:
    params = {"min_terms": 2, "max_terms": 2, "max_digits": 1}
    config = SMALL.model_copy(
        update={"reasoning": (ReasoningTask(name="chain_sum", params=params),), "reasoning_train_items": 5000}
    )
    with pytest.raises(DataError, match=r"of 5000 train items; 'chain_sum' has too few distinct items"):
        make_items(config, passages(), seed=0)


def test_a_generator_named_twice_is_refused() -> None:
    config = SMALL.model_copy(update={"reasoning": (ReasoningTask(name="gcd"),) * 2})
    with pytest.raises(ConfigError, match="'gcd' stands there twice"):
        make_items(config, passages(), seed=0)


def test_held_out_wins() -> None:
    a, b, c, d = (item(name) for name in "abcd")
    shared = {"train": [a, b, c, d, d], "validation": [a, b, b], "test": [a]}
    assert without_shared(shared) == {"train": [c, d], "validation": [b], "test": [a]}


def test_fill_keeps_the_first_of_equal_questions() -> None:
    draws = [Draw("g", item("q", answer), item("q", answer)) for answer in ("1", "2")]
    assert fill(draws, {"train": 2})["train"] == [item("q", "1")]


def test_half_is_enough() -> None:
    got = {"a": {"train": [item("1"), item("2")], "validation": [], "test": []}}
    require_enough("tasks", {"train": 4}, got)
    with pytest.raises(DataError, match="2 of 5 train items"):
        require_enough("tasks", {"train": 5}, got)


def test_content_hash_splits_in_proportion() -> None:
    wanted = {"train": 80, "validation": 15, "test": 5}
    splits = [split_by_content(f"question {n}", wanted) for n in range(10_000)]
    assert all(abs(splits.count(s) / 10_000 - wanted[s] / 100) < 0.02 for s in SPLITS)


@given(st.integers(0, 5000), st.lists(st.floats(0.01, 100), min_size=1, max_size=8))
def test_apportion_sums_and_stays_within_one(total: int, weights: list[float]) -> None:
    parts = apportion(total, weights)
    assert sum(parts) == total
    assert all(abs(p - total * w / sum(weights)) < 1 + 1e-6 for p, w in zip(parts, weights, strict=True))
