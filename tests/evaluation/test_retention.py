"""Retention against closed forms and a bootstrap: ratios on the same units, their errors, and the table by task."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.choice import Choices
from evaluation.measured import Measured
from evaluation.ratio import BlockLosses, text_control
from evaluation.retention import (
    lost_tasks,
    mean_retention,
    retained,
    retention_metrics,
    task_retention,
    task_table,
    text_retention,
)
from evaluation.specialities import Units
from phases.tasks.item import Item


def measured(reasoning: Any, memory: Any, nats: Any = (1.0, 1.0), choices: Any = None) -> Measured:
    """A model with these right answers and losses; nobody looks at its half depth."""
    blocks = BlockLosses(np.array(nats, dtype=np.float64), np.ones(len(nats)), 8)
    found = None if choices is None else Choices(np.array(choices, dtype=bool), np.zeros(len(choices), dtype=bool))
    scores = {"reasoning": np.array(reasoning), "memory": np.array(memory), "adaptive": np.full(2, math.nan)}
    return Measured(text=blocks, half=blocks, scores=scores, choices=found, copied=None)


def units(reasoning: str = "aa", memory: str = "rr", choice: str = "") -> Units:
    """Items whose tasks are the letters."""
    names = {"reasoning": reasoning, "memory": memory, "choice": choice}
    items = {
        speciality: [
            Item(task=letter, speciality=speciality, prompt=str(i), answer="") for i, letter in enumerate(text)
        ]
        for speciality, text in names.items()
    }
    return Units("test", items, torch.zeros(2, 9, dtype=torch.int64), np.ones(2))


def test_a_share_is_the_ratio_of_the_means_and_its_error_the_ratio_estimator_s() -> None:
    share, error = retained(np.array([1, 0, 1, 0]), np.array([1, 1, 1, 0]))
    assert share == pytest.approx(2 / 3)
    assert error == pytest.approx(math.sqrt(4 / 3 * (1 + 4 + 1) / 9) / 3)  # residuals 1/3, −2/3, 1/3, 0


def test_the_error_is_that_of_a_bootstrap_over_the_items() -> None:
    """Answers that agree in nine of ten: the error of two independent means would be three times as large."""
    generator = np.random.default_rng(0)
    parent = generator.random(400) < 0.6
    ours = np.where(generator.random(400) < 0.9, parent, generator.random(400) < 0.4)
    drawn = generator.integers(400, size=(4000, 400))
    share, error = retained(ours, parent)
    ratios = ours[drawn].sum(1) / parent[drawn].sum(1)
    assert share == pytest.approx(ours.mean() / parent.mean())
    assert error == pytest.approx(float(ratios.std()), rel=0.05)
    assert error < 0.6 * math.hypot(ours.std() / ours.mean(), parent.std() / parent.mean()) / 20 * share


def test_the_same_answers_are_retained_without_error() -> None:
    assert retained(np.array([True, False, True]), np.array([True, False, True])) == (1.0, 0.0)
    assert retained(np.array([False, False]), np.array([True, False])) == (0.0, 0.0)
    assert retained(np.array([1, 1]), np.array([1, 0])) == (2.0, pytest.approx(2.0))


@pytest.mark.parametrize("ours", [[0, 0, 0], [1, 0, 1]])
def test_of_nothing_right_no_share_is_left(ours: list[int]) -> None:
    assert retained(np.array(ours), np.zeros(3)) is None


def test_one_item_has_no_error() -> None:
    assert retained(np.array([1]), np.array([1])) == (1.0, None)


def test_each_task_is_retained_on_its_own_items() -> None:
    found = task_retention(measured([1, 0], [1, 1, 1]), measured([1, 1], [1, 1, 0]))
    assert found == {"reasoning": (0.5, pytest.approx(0.5)), "memory": (1.5, pytest.approx(math.sqrt(1.5 * 1.5) / 2))}


def test_the_mean_over_tasks_has_the_error_of_independent_ones() -> None:
    share, error = mean_retention(measured([1, 0], [1, 1, 1]), measured([1, 1], [1, 1, 0]))
    assert share == pytest.approx((0.5 + 1.5) / 2)
    assert error == pytest.approx(math.hypot(0.5, 0.75) / 2)


def test_the_mean_leaves_out_what_the_parent_could_not_do() -> None:
    ours, parent = measured([1, 0], [1, 1], (2.0, 4.0)), measured([1, 1], [0, 0], (1.0, 3.0))
    assert task_retention(ours, parent) == {"reasoning": (0.5, pytest.approx(0.5))}
    assert mean_retention(ours, parent) == (0.5, pytest.approx(0.5))
    found = {m.name: (m.value, m.n) for m in retention_metrics("m", ours, parent, units("aa", "rr"))}
    text = {"m/text_retention": (pytest.approx(4 / 6), 2)}
    assert found == {"m/reasoning_retention": (0.5, 2), "m/tasks_retention": (0.5, 2), **text}
    nothing = measured([0, 0], [0, 0], (1.0, 3.0))
    assert mean_retention(ours, nothing) is None
    assert {m.name for m in retention_metrics("m", ours, nothing, units("aa", "rr"))} == set(text)


def test_a_mean_with_a_task_of_one_item_has_no_error() -> None:
    assert mean_retention(measured([1, 0], [1]), measured([1, 1], [1])) == (0.75, None)


def test_text_is_the_parent_s_loss_over_ours() -> None:
    share, error = text_retention(measured([1], [1], (2.0, 4.0)), measured([1], [1], (1.0, 3.0)))
    assert share == pytest.approx(4 / 6)
    assert error == pytest.approx(math.sqrt(2 * (1 / 9 + 1 / 9)) / 6)  # residuals 1 − 4/3, 3 − 8/3


def test_metrics_have_their_units() -> None:
    ours, parent = measured([1, 0], [1, 1, 1], (2.0, 4.0)), measured([1, 1], [1, 1, 0], (1.0, 3.0))
    found = {m.name: m for m in retention_metrics("m", ours, parent, units("aa", "rrr"))}
    assert {name: (m.value, m.n) for name, m in found.items()} == {
        "m/reasoning_retention": (0.5, 2),
        "m/memory_retention": (1.5, 3),
        "m/tasks_retention": (1.0, 5),
        "m/text_retention": (pytest.approx(4 / 6), 2),
    }
    errors = [0.5, 0.75, math.hypot(0.5, 0.75) / 2, 1 / 9]
    assert [m.stderr for m in found.values()] == pytest.approx(errors)
    assert {(m.split, m.unit) for m in found.values()} == {("test", "of the parent")}


def test_the_table_has_every_task_by_hand() -> None:
    """Tasks lie among each other; b is one that the parent cannot do, and of d there is one item."""
    ours = measured([1, 1, 0, 0, 1], [0, 1, 1], choices=[True, True])
    parent = measured([1, 0, 1, 0, 1], [1, 1, 1], choices=[True, False])
    table = task_table(units("ababa", "rrd", "cc"), ours, parent, "ternary")
    third, half = 1 / 3, 1 / 2
    rows = {
        # task: n, parent, its error, ours, its error, retention, its error
        "a": (3, 1.0, 0.0, 2 / 3, third, 2 / 3, math.sqrt(3 / 2 * (1 + 4 + 1) / 9) / 3),
        "b": (2, 0.0, 0.0, half, half, None, None),
        "d": (1, 1.0, None, 1.0, None, 1.0, None),
        "r": (2, 1.0, 0.0, half, half, half, half),
        "c": (2, half, half, 1.0, 0.0, 2.0, 2.0),
    }
    assert [row[0] for row in table.rows] == list(rows)
    for name, *found in table.rows:
        assert tuple(found) == pytest.approx(rows[str(name)]), name
    assert table.columns == ("task", "n", "parent", "parent ±", "ternary", "ternary ±", "retention", "retention ±")


def test_multiple_choice_needs_both() -> None:
    ours, parent = measured([1, 0], [1, 1], choices=[True, True]), measured([1, 0], [1, 1])
    for pair in ((ours, parent), (parent, ours), (parent, parent)):
        assert [row[0] for row in task_table(units("aa", "rr", "cc"), *pair, "ternary").rows] == ["a", "r"]


def test_a_single_task_is_lost_beyond_its_error() -> None:
    """Of ten right answers of a and of r and four of c, multiple choice; b is one that the parent cannot do."""
    found = units("a" * 12 + "b" * 4, "r" * 10, "c" * 4)
    parent = measured([1] * 10 + [0] * 6, [1] * 10, choices=[1] * 4)
    ours = measured([1] * 9 + [0] * 7, [1] * 3 + [0] * 7, choices=[1, 1, 1, 0])
    # Of r 0.3 is kept, with an error of √(10/9 · (3 · 0.7² + 7 · 0.3²)) / 10 = 0.153: 0.95 is four errors away.
    assert lost_tasks(found, ours, parent, 0.95, 4.2) == ["r"]
    assert lost_tasks(found, ours, parent, 0.95, 4.3) == []
    # Of a 0.9 is kept, with an error of √(12/11 · (9 · 0.1² + 0.9²)) / 10 = 0.099.
    # Of c 0.75, with an error of √(4/3 · (3 · 0.25² + 0.75²)) / 4 = 0.25.
    assert lost_tasks(found, ours, parent, 0.95, 0.4) == ["a", "r", "c"]
    assert lost_tasks(found, ours, parent, 0.95, 0.6) == ["r", "c"]
    assert lost_tasks(found, ours, parent, 0.95, 0.9) == ["r"]
    without = [Measured(m.text, m.half, m.scores, None, None) for m in (ours, parent)]
    assert lost_tasks(found, ours, without[1], 0.95, 0.6) == lost_tasks(found, *without, 0.95, 0.6) == ["r"]
    assert lost_tasks(found, parent, ours, 0.95, 0.0) == [] == lost_tasks(found, parent, parent, 1.0, 0.0)


def test_a_task_that_lost_everything_has_no_error_to_hide_in() -> None:
    assert lost_tasks(units("aa", "r"), measured([0, 0], [0]), measured([1, 1], [1]), 0.95, 100) == ["a", "r"]


def test_less_loss_is_more_in_a_control() -> None:
    ours, other = measured([1], [1], (2.0, 4.0)).text, measured([1], [1], (3.0, 7.0)).text
    control = text_control("plain", ours, other, "as many steps")
    bit = math.log(2)
    assert (control.ours, control.control) == pytest.approx((-3 / bit, -5 / bit))
    assert control.difference == pytest.approx(2 / bit) == pytest.approx(control.ours - control.control)
    assert control.stderr == pytest.approx(1 / bit)  # of the paired differences 1 and 3; the models' own are 1 and 2
    assert (control.name, control.metric, control.n, control.budget) == ("plain", "−bits per byte", 2, "as many steps")
