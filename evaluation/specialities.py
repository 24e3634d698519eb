"""The matrix: every model on every speciality, per unit, on held-out data.

Columns: *reasoning* (exact match), *memory* (accuracy on recall and needles), both by real greedy decoding, and
*adaptive* (next-token accuracy of the exit at half depth). Rows: the branches, the trunk, the control. A branch is
specialised when it is the best of the branches on its own column; `diagonal_margin` says by how much, paired over the
units. Next to the best *other* branch stands its standard error for that pair; picking the strongest rival can only
make the margin smaller, so the test is conservative.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from evaluation.config import EvaluationConfig
from evaluation.generation import exact_match
from evaluation.judgement import Cell, Table
from evaluation.language import spread, text_blocks
from evaluation.metric import Metric, Values, mean_metric, standard_error
from evaluation.significance import Difference, paired_bootstrap
from evaluation.thinking import without_thoughts
from phases.dataset import Dataset
from phases.errors import DataError
from phases.probe import SPECIALITIES, half_depth_accuracy
from phases.tasks.item import Item

Scores = dict[str, Values]
"""Speciality to one value a unit."""
NAMES = {
    "reasoning": "reasoning_exact_match",
    "memory": "recall_accuracy",
    "adaptive": "half_depth_accuracy",
}
"""Metric of each speciality."""


@dataclass(frozen=True)
class Units:
    """The held-out units that every model is measured on."""

    split: str
    items: dict[str, list[Item]]
    """`reasoning`, `memory`, and `choice` and `copying` where there are any."""
    text_NT: torch.Tensor
    bytes_N: npt.NDArray[np.float64]


def held_out(data: Dataset, config: EvaluationConfig) -> Units:
    """The units of the judged split. Raises `DataError` when a speciality has fewer than two items."""
    text_NT, bytes_N = text_blocks(data, config.split, config.blocks)
    items = {}
    wanted = {"reasoning": config.items, "memory": config.items, "choice": config.choices, "copying": config.copies}
    for name, most in wanted.items():
        every = data.items(config.split, name)
        items[name] = [every[i] for i in spread(len(every), most)]
        if name in NAMES and len(items[name]) < 2:
            raise DataError(
                f"{data.path}: the {config.split} split has {len(items[name])} {name} items, at least 2 are needed; "
                "prepare more in data.tasks"
            )
    return Units(config.split, items, text_NT, bytes_N)


def speciality_scores(model: Any, tokenizer: Any, units: Units, batch: int = 64) -> Scores:
    """One value a unit: decoded answers that are right, and half-depth accuracy (of the plain weights) by block."""
    decoded = {name: exact_match(model, tokenizer, units.items[name], batch).right_N for name in SPECIALITIES[:2]}
    return {**decoded, "adaptive": half_depth_accuracy(without_thoughts(model), units.text_NT)}


def speciality_metrics(model: str, scores: Scores, split: str, parent: Scores | None = None) -> list[Metric]:
    """The model's three metrics, next to its parent's."""
    return [
        mean_metric(f"{model}/{NAMES[k]}", split, v, parent=None if parent is None else float(np.mean(parent[k])))
        for k, v in scores.items()
    ]


@dataclass(frozen=True)
class Margin:
    """A branch against the strongest other branch on its own speciality."""

    branch: str
    rival: str
    own: float
    other: float
    by: Difference


def diagonal_margin(
    matrix: dict[str, Scores], branch: str, branches: Sequence[str], config: EvaluationConfig
) -> Margin:
    """The branch named like its speciality against the best of the other branches."""
    means = {name: float(np.mean(matrix[name][branch])) for name in branches}
    rival = max((name for name in branches if name != branch), key=lambda name: means[name])
    by = paired_bootstrap(matrix[branch][branch], matrix[rival][branch], config.resamples, config.seed)
    return Margin(branch, rival, means[branch], means[rival], by)


def margin_metric(margin: Margin, split: str) -> Metric:
    """The margin with its paired standard error."""
    name = f"{margin.branch}/{NAMES[margin.branch]}_margin"
    by = margin.by
    return Metric(name=name, split=split, value=by.difference, stderr=by.stderr, n=by.n, unit="share")


def matrix_table(matrix: dict[str, Scores]) -> Table:
    """Models × specialities, each with its standard error."""
    columns = ["model", *(c for name in SPECIALITIES for c in (name, f"{name} ±"))]
    rows: list[tuple[Cell, ...]] = []
    for model, scores in matrix.items():
        pairs = [(float(np.mean(scores[k])), standard_error(scores[k])) for k in SPECIALITIES]
        rows.append((model, *(value for pair in pairs for value in pair)))
    return Table(title="Specialities of every model (± standard error)", columns=tuple(columns), rows=tuple(rows))


Group = Callable[[Item], tuple[str | int, ...]]
"""What an item is counted under, e.g. its task and difficulty."""


def by_group(items: Sequence[Item], values: Values, key: Group) -> list[tuple[Cell, float, float | None, int]]:
    """(group, mean, standard error, n) for each value of `key`, sorted; a group's parts are joined by spaces."""
    groups: dict[tuple[str | int, ...], list[float]] = {}
    for item, value in zip(items, values, strict=True):
        groups.setdefault(key(item), []).append(float(value))
    return [(_label(k), float(np.mean(v)), standard_error(np.array(v)), len(v)) for k, v in sorted(groups.items())]


def _label(parts: tuple[str | int, ...]) -> Cell:
    return parts[0] if len(parts) == 1 else " ".join(str(part) for part in parts)


def group_table(title: str, label: str, items: Sequence[Item], by_model: dict[str, Values], key: Group) -> Table:
    """One row a group, for each model its mean and standard error."""
    columns = [label, "n", *(c for model in by_model for c in (model, f"{model} ±"))]
    grouped = {model: by_group(items, values, key) for model, values in by_model.items()}
    rows: list[tuple[Cell, ...]] = []
    for i, (group, _, _, n) in enumerate(next(iter(grouped.values()))):
        rows.append((group, n, *(value for model in by_model for value in grouped[model][i][1:3])))
    return Table(title=title, columns=tuple(columns), rows=tuple(rows))


def recall_table(items: Sequence[Item], by_model: dict[str, Values]) -> Table | None:
    """Recall accuracy by number of pairs; None when the data has no recall items."""
    chosen = np.array([item.task.startswith("recall") for item in items], dtype=np.bool_)
    if not chosen.any():
        return None
    kept = [item for item, yes in zip(items, chosen, strict=True) if yes]
    values: dict[str, Values] = {model: np.asarray(v)[chosen] for model, v in by_model.items()}
    return group_table("Recall accuracy by number of pairs", "pairs", kept, values, lambda item: (item.difficulty,))
