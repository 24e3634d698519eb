"""Reasoning items: every answer is recomputed here by other means than the generator's."""

import math
import re

import pytest

from phases.dataset import SPLITS
from phases.errors import ConfigError
from phases.tasks.collect import Items, unordered
from phases.tasks.compact import euclid, plain_number, question, running_totals
from phases.tasks.item import Item
from phases.tasks.reasoning import DEFAULT_REASONING, ReasoningTask, reasoning_items

WANTED = {"train": 120, "validation": 15, "test": 15}
BY_NAME = {task.name: task for task in DEFAULT_REASONING}


def every(items: Items) -> list[Item]:
    return [item for split in SPLITS for item in items[split]]


def solve(item: Item) -> str:
    """The answer, from the prompt alone."""
    words = item.prompt.split()
    if item.task == "gcd":
        a, b = int(words[1]), int(words[2])
        return str(max(d for d in range(1, min(a, b) + 1) if a % d == b % d == 0))
    if item.task == "lcm":
        a, b = int(words[1]), int(words[2])
        return str(next(m for m in range(1, a * b + 1) if m % a == m % b == 0))
    if item.task == "count_bits":
        return str(sum(int(words[1]) >> k & 1 for k in range(32)))
    if item.task == "number_sorting":
        return " ".join(map(str, sorted(map(int, words[2:]), reverse=words[1] == "down")))
    if item.task == "spell_backward":
        return " ".join(words[1:][::-1])
    if item.task == "letter_counting":
        return str(item.prompt.split(": ")[1].count(words[1][0]))
    if item.task == "products":
        return str(math.prod(map(int, re.findall(r"\d+", item.prompt))))
    return str(sum(map(int, re.findall(r"[+-]?\d+", item.prompt))))


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_default_answers_are_right(name: str) -> None:
    items = every(reasoning_items(BY_NAME[name], WANTED, seed=3))
    assert len(items) == 150
    assert [item.answer for item in items] == [solve(item) for item in items]
    assert max(len(item.prompt) for item in items) <= 60


@pytest.mark.parametrize("name", ["lcm", "products"])
def test_other_compact_answers_are_right(name: str) -> None:
    items = every(reasoning_items(ReasoningTask(name=name), WANTED, seed=3))
    assert [item.answer for item in items] == [solve(item) for item in items]


def test_steps_of_a_long_sum_end_in_its_answer() -> None:
    params = {"min_terms": 3, "max_terms": 5, "max_digits": 2}
    task = ReasoningTask(name="chain_sum", params=params, steps=True)
    for item in every(reasoning_items(task, WANTED, seed=0)):
        totals = [step.split("=") for step in item.steps.split(";")]
        assert len(totals) == item.difficulty - 1
        assert all(
            sum(map(int, re.findall(r"-?\d+", re.sub(r"\+", " ", left)))) == int(right) for left, right in totals
        )
        assert item.completion == f"{item.steps} #### {item.answer}"
        assert totals[-1][1] == item.answer == solve(item)


def test_steps_are_off_by_default_and_absent_for_two_terms() -> None:
    assert {item.steps for item in every(reasoning_items(BY_NAME["gcd"], WANTED, seed=0))} == {""}
    task = BY_NAME["chain_sum"].model_copy(update={"steps": True})
    assert {item.steps for item in every(reasoning_items(task, WANTED, seed=0))} == {""}


def test_worked_steps() -> None:
    assert running_totals("3 + 4 - 5 - 9") == "3+4=7;7-5=2;2-9=-7"
    assert running_totals("-3 + 4 - 5") == "-3+4=1;1-5=-4"
    assert euclid(22, 17) == "22%17=5;17%5=2;5%2=1;2%1=0"


@pytest.mark.parametrize(
    ("text", "plain"), [("88.0", "88"), ("2.50", "2.5"), ("100", "100"), ("0.0", "0"), ("-7.0", "-7")]
)
def test_plain_number(text: str, plain: str) -> None:
    assert plain_number(text) == plain


def test_a_generator_without_compact_form_keeps_its_words() -> None:
    items = every(reasoning_items(ReasoningTask(name="leg_counting"), WANTED, seed=1))
    assert all("how many legs" in item.prompt and item.answer.isdigit() for item in items)
    assert min(item.difficulty for item in items) >= 3  # its num_animals


def test_deterministic_and_seeds_are_far_apart() -> None:
    task = BY_NAME["number_sorting"]
    first, again, other = (reasoning_items(task, WANTED, seed) for seed in (0, 0, 1))
    assert first == again
    # reasoning-gym draws from Random(seed + i): neighbouring seeds taken as they are would share all but one item.
    assert len({i.key for i in every(first)} & {i.key for i in every(other)}) < 5


def test_orders_of_one_question_share_a_split() -> None:
    items = reasoning_items(BY_NAME["gcd"], {"train": 2000, "validation": 200, "test": 200}, seed=0)
    groups = {split: {unordered(item.prompt) for item in items[split]} for split in SPLITS}
    assert not groups["train"] & (groups["test"] | groups["validation"])
    assert not groups["test"] & groups["validation"]


def test_a_small_space_of_questions_is_shared_in_proportion() -> None:
    task = ReasoningTask(name="chain_sum", params={"min_terms": 2, "max_terms": 2, "max_digits": 1})
    items = reasoning_items(task, {"train": 4000, "validation": 85, "test": 85}, seed=0)
    assert len(items["train"]) > 150  # of 200: filling the held-out splits first would leave 30


def test_unknown_generator_lists_close_ones() -> None:
    with pytest.raises(ConfigError, match=r"tasks.reasoning 'chain_sums'.*chain_sum"):
        reasoning_items(ReasoningTask(name="chain_sums"), WANTED, seed=0)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_numbr": 3}, r"unknown parameter 'max_numbr'; allowed here: max_numbers, max_value"),
        ({"seed": 3}, r"unknown parameter 'seed'"),
        ({"min_numbers": 0}, r"min_numbers must be at least 2"),
        ({"min_numbers": "two"}, r"wrong parameters \{'min_numbers': 'two'\}"),
    ],
)
def test_wrong_parameters(params: dict[str, int | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        reasoning_items(ReasoningTask(name="gcd", params=params), WANTED, seed=0)
    assert "\n" not in str(caught.value)


def test_a_generator_without_single_answers_is_refused() -> None:
    with pytest.raises(ConfigError, match="'rush_hour' has no single right answer"):
        question("rush_hour", {"question": "move", "answer": None, "metadata": {}})
