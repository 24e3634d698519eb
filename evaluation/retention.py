"""How much of the parent is left: ratios of ours to the parent's, on the same units, with their standard errors.

A ratio of two means over the same units has the ratio estimator's standard error (`evaluation.ratio`), which takes in
that both answered the same questions. For a loss, where less is better, retention is the parent's over ours.
"""

import math
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


Share = tuple[float, float | None]
"""A ratio and its standard error, which one unit alone does not have."""


def retained(ours: Values, parent: Values) -> Share | None:
    """Σ ours / Σ parent and its standard error; None where the parent has nothing right and so nothing to lose."""
    theirs = np.asarray(parent, dtype=np.float64)
    return ratio(np.asarray(ours, dtype=np.float64), theirs) if theirs.sum() > 0 else None


def task_retention(ours: Measured, parent: Measured) -> dict[str, Share]:
    """Retention of the share of right answers, for every task of which the parent has any."""
    found = {name: retained(ours.scores[name], parent.scores[name]) for name in TASKS}
    return {name: share for name, share in found.items() if share is not None}


def text_retention(ours: Measured, parent: Measured) -> Share:
    """The parent's bits per byte over ours."""
    return ratio(parent.text.nats_N, ours.text.nats_N)


def mean_retention(ours: Measured, parent: Measured) -> Share | None:
    """Mean over those tasks; its error from theirs, which are of other items. None where there are no such tasks."""
    found = list(task_retention(ours, parent).values())
    if not found:
        return None
    errors = [error for _, error in found if error is not None]
    error = math.sqrt(sum(e**2 for e in errors)) / len(found) if len(errors) == len(found) else None
    return float(np.mean([share for share, _ in found])), error


def retention_metrics(model: str, ours: Measured, parent: Measured, units: Units) -> list[Metric]:
    """Retention by task, of their mean and of bits per byte."""
    found = {name: (*pair, len(units.items[name])) for name, pair in task_retention(ours, parent).items()}
    mean = mean_retention(ours, parent)
    if mean is not None:
        found["tasks"] = (*mean, sum(n for _, _, n in found.values()))
    found["text"] = (*text_retention(ours, parent), len(units.text_NT))
    return [
        Metric(
            name=f"{model}/{name}_retention", split=units.split, value=value, stderr=error, n=n, unit="of the parent"
        )
        for name, (value, error, n) in found.items()
    ]


def lost_tasks(units: Units, ours: Measured, parent: Measured, kept: float, sigmas: float) -> list[str]:
    """The single tasks whose retention lies below `kept` by more than `sigmas` standard errors."""
    shares = [(str(row[0]), row[-2], row[-1]) for row in _every_task(units, ours, parent)]
    return [task for task, share, error in shares if share is not None and _below(share, error, kept, sigmas)]


def _below(share: Cell, error: Cell, kept: float, sigmas: float) -> bool:
    return float(share or 0.0) + sigmas * float(error or 0.0) < kept


def task_table(units: Units, ours: Measured, parent: Measured, model: str) -> Table:
    """Every task of reasoning and memory, and multiple choice: ours (called `model`), the parent's, retention."""
    rows = _every_task(units, ours, parent)
    columns = ("task", "n", "parent", "parent ±", model, f"{model} ±", "retention", "retention ±")
    return Table(title="Retention by task", columns=columns, rows=tuple(rows))


def _every_task(units: Units, ours: Measured, parent: Measured) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for name in TASKS:
        rows += _rows(units.items[name], ours.scores[name], parent.scores[name])
    if ours.choices is not None and parent.choices is not None:
        rows += _rows(units.items["choice"], ours.choices.right_N, parent.choices.right_N)
    return rows


def _rows(items: Sequence[Item], ours: Values, parent: Values) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    pairs = zip(by_group(items, ours, _task), by_group(items, parent, _task), strict=True)
    names = np.array([item.task for item in items])
    for (task, mean, error, n), (_, before, before_error, _) in pairs:
        chosen = names == task
        share = retained(np.asarray(ours)[chosen], np.asarray(parent)[chosen])
        rows.append((task, n, before, before_error, mean, error, *(share or (None, None))))
    return rows


def _task(item: Item) -> tuple[str | int, ...]:
    return (item.task,)
