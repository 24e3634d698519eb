"""How much of the parent is left: ratios of ours to the parent's, on the same units, with their standard errors.

A ratio of two means over the same units has the ratio estimator's standard error (`evaluation.ratio`), which takes in
that both answered the same questions. For a loss, where less is better, retention is the parent's over ours.
"""

from collections.abc import Sequence

import numpy as np

from evaluation.judgement import Cell, Table
from evaluation.measured import Measured
from evaluation.metric import Metric, Values
from evaluation.ratio import ratio
from evaluation.specialities import Units, by_group
from phases.tasks.item import Item

TASKS = ("reasoning", "memory")
"""Specialities whose answers are decoded and checked."""


def retained(ours: Values, parent: Values) -> tuple[float, float | None]:
    """Σ ours / Σ parent and its standard error. A parent that has nothing right has lost nothing: (1, None)."""
    theirs = np.asarray(parent, dtype=np.float64)
    return ratio(np.asarray(ours, dtype=np.float64), theirs) if theirs.sum() > 0 else (1.0, None)


def task_retention(ours: Measured, parent: Measured) -> dict[str, tuple[float, float | None]]:
    """Retention of each task's share of right answers."""
    return {name: retained(ours.scores[name], parent.scores[name]) for name in TASKS}


def text_retention(ours: Measured, parent: Measured) -> tuple[float, float | None]:
    """The parent's bits per byte over ours."""
    return ratio(parent.text.nats_N, ours.text.nats_N)


def mean_retention(ours: Measured, parent: Measured) -> tuple[float, float | None]:
    """Mean over the tasks of which the parent got anything right; its error from theirs, which are of other items."""
    found = [(share, error) for share, error in task_retention(ours, parent).values() if error is not None]
    if not found:
        return 1.0, None
    errors = np.array([error for _, error in found])
    return float(np.mean([share for share, _ in found])), float(np.sqrt((errors**2).sum())) / len(found)


def retention_metrics(model: str, ours: Measured, parent: Measured, units: Units) -> list[Metric]:
    """Retention by task, of their mean and of bits per byte."""
    found = {name: (*pair, len(units.items[name])) for name, pair in task_retention(ours, parent).items()}
    found["tasks"] = (*mean_retention(ours, parent), sum(len(units.items[name]) for name in TASKS))
    found["text"] = (*text_retention(ours, parent), len(units.text_NT))
    return [
        Metric(
            name=f"{model}/{name}_retention", split=units.split, value=value, stderr=error, n=n, unit="of the parent"
        )
        for name, (value, error, n) in found.items()
    ]


def task_table(units: Units, ours: Measured, parent: Measured) -> Table:
    """Every task of reasoning and memory, and multiple choice: ours, the parent's, retention."""
    rows: list[tuple[Cell, ...]] = []
    for name in TASKS:
        rows += _rows(units.items[name], ours.scores[name], parent.scores[name])
    if ours.choices is not None and parent.choices is not None:
        rows += _rows(units.items["choice"], ours.choices.right_N, parent.choices.right_N)
    columns = ("task", "n", "parent", "parent ±", "ternary", "ternary ±", "retention", "retention ±")
    return Table(title="Retention by task", columns=columns, rows=tuple(rows))


def _rows(items: Sequence[Item], ours: Values, parent: Values) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    pairs = zip(by_group(items, ours, _task), by_group(items, parent, _task), strict=True)
    names = np.array([item.task for item in items])
    for (task, mean, error, n), (_, before, before_error, _) in pairs:
        chosen = names == task
        share = retained(np.asarray(ours)[chosen], np.asarray(parent)[chosen]) if before > 0 else (None, None)
        rows.append((task, n, before, before_error, mean, error, *share))
    return rows


def _task(item: Item) -> tuple[str | int, ...]:
    return (item.task,)
