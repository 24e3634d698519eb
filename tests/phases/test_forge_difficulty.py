"""Tasks at a level: limits by hand, really easier and harder items, and no way for a held-out question to get in."""

import random
from statistics import mean

import pytest

from phases.dataset import Dataset
from phases.errors import ConfigError
from phases.forge.difficulty import at_level, content, fresh_items, recall_at_level, task_weights, tasks_of
from phases.tasks.collect import unordered
from phases.tasks.compact import COMPACT
from phases.tasks.config import TasksConfig
from phases.tasks.item import Item
from phases.tasks.needle import NeedleConfig
from phases.tasks.reasoning import DEFAULT_REASONING, ReasoningTask, reasoning_draws, reasoning_items
from phases.tasks.recall import RecallConfig, recall_draws, recall_items

PAIRS = (2, 3, 4, 6)


def measure(item: Item) -> float:
    """How much there is to read, letters of words and digits of numbers alike; of values, their size."""
    if item.task in ("gcd", "lcm", "count_bits"):
        return mean(int(word) for word in item.prompt.split()[1:])
    return len(item.prompt)


@pytest.mark.parametrize(
    "task",
    [*DEFAULT_REASONING, *(ReasoningTask(name=name) for name in COMPACT)],
    ids=lambda task: f"{task.name}-{'given' if task.params else 'defaults'}",
)
def test_every_compact_task_is_easier_at_0_and_harder_beyond_1(task: ReasoningTask) -> None:
    levels = fresh_items(TasksConfig(reasoning=(task,)), [0, 0.5, 1, 1.5, 2], 200, 0, [])[task.name]
    assert min(len(cell) for cell in levels) >= 90
    mass = [mean(measure(item) for item in cell) for cell in levels]
    assert mass[0] < 0.85 * mass[2]
    assert mass[0] < mass[1] * 1.02 and mass[1] < mass[2] * 1.02  # whole numbers: two levels may be the same
    if task.name != "spell_backward" or task.params:  # its file has no words beyond the default's ten letters
        assert mass[4] > 1.05 * mass[2] and mass[4] > mass[3] * 0.98


@pytest.mark.parametrize(
    ("name", "params", "level", "moved"),
    [
        ("gcd", {"min_value": 2, "max_value": 60}, 0, {"max_value": 13}),
        ("gcd", {"min_value": 2, "max_value": 60}, 0.5, {"max_value": 36}),
        ("gcd", {"min_value": 2, "max_value": 60}, 2, {"max_value": 107}),
        ("gcd", {"min_value": 2, "max_value": 9}, 0, {"max_value": 9}),
        ("count_bits", {}, 0, {"max_n": 301}),
        ("chain_sum", {"min_terms": 2, "max_terms": 2}, 0, {"max_digits": 1}),
        ("chain_sum", {"min_terms": 2, "max_terms": 5}, 0.67, {"max_terms": 4, "max_digits": 3}),
        ("number_sorting", {"max_decimals": 0}, 0, {"max_numbers": 4, "min_value": -20.0, "max_value": 20.0}),
        ("leg_counting", {}, 0, {"max_animals": 4, "max_instances": 3}),
        ("advanced_geometry", {}, 0.5, {"min_coord": -6, "max_coord": 6}),
        ("letter_jumble", {}, 0, {"max_word_len": 13, "max_words": 6, "max_corruption_level": pytest.approx(0.26)}),
        ("word_ladder", {}, 0, {}),
        ("time_intervals", {}, 0, {}),
        ("syllogism", {}, 0, {}),
    ],
)
def test_limits_by_hand(name: str, params: dict[str, float], level: float, moved: dict[str, float]) -> None:
    task = ReasoningTask(name=name, params=params, weight=3.0)
    assert at_level(task, level) == task.model_copy(update={"params": params | moved})
    assert at_level(task, 1) is task
    assert next(reasoning_draws(at_level(task, level), 5, 0)).train.answer


def test_whole_limits_stay_whole() -> None:
    for level in (0, 0.3, 0.9, 1.7):
        assert {type(v) for v in at_level(DEFAULT_REASONING[0], level).params.values()} == {int}


@pytest.mark.parametrize(
    ("pairs", "level", "expected"),
    [
        (PAIRS, 0, (2,)),
        (PAIRS, 0.34, (2, 3)),
        ((6, 3, 2, 4), 0.67, (2, 3, 4)),
        ((6, 3, 2, 4), 1, (6, 3, 2, 4)),
        (PAIRS, 1.34, (*PAIRS, 8)),
        (PAIRS, 2, (*PAIRS, 8, 10, 12)),
        ((10, 30, 50), 2, (10, 30, 50)),
        ((4,), 0, (4,)),
        ((4,), 2, (4, 5)),
    ],
)
def test_numbers_of_pairs(pairs: tuple[int, ...], level: float, expected: tuple[int, ...]) -> None:
    config = RecallConfig(pairs=pairs, filler=2)
    assert recall_at_level(config, level) == RecallConfig(pairs=expected, filler=2)


def test_content_is_the_group_that_splits_are_drawn_by() -> None:
    for draw in recall_draws(RecallConfig(filler=3), 200, 0):
        assert f"recall {content(draw.train)}" == f"recall {content(draw.held_out)}" == draw.group
    for task in DEFAULT_REASONING:
        for draw in reasoning_draws(task, 50, 0):
            assert f"{task.name} {content(draw.train)}" == draw.group


SMALL = TasksConfig(
    reasoning=(
        ReasoningTask(name="gcd", params={"min_value": 2, "max_value": 16}),
        ReasoningTask(name="chain_sum", params={"min_terms": 2, "max_terms": 2, "max_digits": 1}),
    ),
    recall=RecallConfig(pairs=(1, 2)),
)


def held_out() -> list[Item]:
    """Validation and test items of spaces so small that every fresh draw would meet some."""
    wanted = {"train": 100, "validation": 100, "test": 100}
    made = [reasoning_items(task, wanted, 0) for task in SMALL.reasoning] + [recall_items(SMALL.recall, wanted, 0)]
    return [item for items in made for split in ("validation", "test") for item in items[split]]


def groups(items: list[Item]) -> set[str]:
    """Questions without their order, told apart by other means than the code's."""
    return {
        f"{i.task} {sorted(set(i.prompt.split('?')[0].split(';'))) if i.task == 'recall' else unordered(i.prompt)}"
        for i in items
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_no_held_out_question_is_made_again_in_any_order(seed: int) -> None:
    kept = held_out()
    free = fresh_items(SMALL, [0, 1], 300, seed, [])
    safe = fresh_items(SMALL, [0, 1], 300, seed, kept)
    for task, cells in safe.items():
        for cell, unguarded in zip(cells, free[task], strict=True):
            assert groups(unguarded) & groups(kept)  # there is something to guard against
            assert cell and not groups(cell) & groups(kept)
            assert len({item.key for item in cell}) == len(cell) <= 300


def test_an_item_in_another_order_or_under_another_name_is_kept_out() -> None:
    one = Item(task="gcd", speciality="reasoning", prompt="gcd 12 8", answer="4")
    tasks = TasksConfig(reasoning=SMALL.reasoning[:1], memory_train_items=0)
    made = {item.prompt for item in fresh_items(tasks, [1], 300, 0, [])["gcd"][0]}
    assert {"gcd 12 8", "gcd 8 12"} <= made
    for held in (one, one.model_copy(update={"task": "my_file", "prompt": "gcd 8 12"})):
        left = {item.prompt for item in fresh_items(tasks, [1], 300, 0, [held])["gcd"][0]}
        assert left == made - {"gcd 12 8", "gcd 8 12"}


def test_recall_is_guarded_by_its_pairs_whatever_is_asked() -> None:
    item = fresh_items(SMALL, [0], 20, 3, [])["recall"][0][5]
    pairs = item.prompt.split("?")[0].split(";")
    random.Random(0).shuffle(pairs)
    asked = item.model_copy(update={"prompt": f"then;{';'.join(pairs)};now?{pairs[0][0]}"})
    assert item not in fresh_items(SMALL, [0], 20, 3, [asked])["recall"][0]


def test_items_are_deterministic_and_unlike_the_datas_own() -> None:
    first, again, other = (fresh_items(SMALL, [0, 1], 50, seed, []) for seed in (0, 0, 1))
    assert first == again != other
    assert any(";" in item.answer for item in first["recall"][1])  # several keys are asked for, as in training
    task = DEFAULT_REASONING[2]
    own = {item.key for item in reasoning_items(task, {"train": 200}, 0)["train"]}
    fresh = fresh_items(TasksConfig(reasoning=(task,)), [1, 1], 200, 0, [])[task.name]
    assert len(own & {item.key for item in fresh[0]}) < 40  # 200 of 4000 values: 10 by chance, not all 200
    assert fresh[0] != fresh[1]


def test_a_level_beyond_what_a_generator_takes_is_empty_but_a_wrong_task_is_an_error() -> None:
    puzzle = TasksConfig(reasoning=(ReasoningTask(name="caesar_cipher"),), memory_train_items=0)
    assert [len(cell) for cell in fresh_items(puzzle, [0, 1, 1.5], 20, 0, [])["caesar_cipher"]] == [20, 20, 0]
    wrong = TasksConfig(reasoning=(ReasoningTask(name="gcd", params={"max_valu": 3}),))
    with pytest.raises(ConfigError, match="unknown parameter 'max_valu'"):
        fresh_items(wrong, [0], 20, 0, [])
    with pytest.raises(ConfigError, match="'gone': reasoning-gym has no such generator"):
        at_level(ReasoningTask(name="gone"), 0)


def test_the_generators_of_a_data_set(tiny_data: Dataset) -> None:
    assert fresh_items(tasks_of(tiny_data), [0, 1], 20, 0, []) == {}
    card = {"config": {"tasks": SMALL.model_dump(mode="json")}}
    assert tasks_of(Dataset(tiny_data.path, "", card)) == SMALL
    assert task_weights(TasksConfig())["chain_sum"] == 0.5
    assert list(task_weights(SMALL)) == ["gcd", "chain_sum", "recall"]
    assert list(task_weights(TasksConfig(reasoning_train_items=0))) == ["recall"]
    assert "recall" not in task_weights(TasksConfig(needle=NeedleConfig(share=1.0)))
