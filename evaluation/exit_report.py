"""The exit-depth report: where tokens leave, on easy and hard text and by difficulty of the items."""

from typing import Any

import numpy as np

from evaluation.exit_depth import Exits, item_exits, slope, text_exits, unit_means, within
from evaluation.judgement import Cell, Table
from evaluation.metric import Metric, Values, mean_metric, standard_error
from evaluation.specialities import Units, by_group
from phases.tasks.item import Item

EASY_BITS = 1.0
"""A token is easy when the full model pays at most one bit for it (it gave the truth at least an even chance)."""


def exit_report(models: dict[str, Any], tokenizer: Any, units: Units, tau: float) -> tuple[list[Metric], Table]:
    """Metrics and one table for models by name."""
    metrics: list[Metric] = []
    rows: list[tuple[Cell, ...]] = []
    for name, model in models.items():
        text = text_exits(model, units.text_NT, tau)
        metrics += _text_metrics(name, text, units)
        rows += _text_rows(name, text, len(units.text_NT))
        for speciality in ("reasoning", "memory"):
            item_metric, item_rows = _items(name, model, tokenizer, units, speciality, tau)
            metrics.append(item_metric)
            rows += item_rows
    columns = ("model", "on", "mean depth", "±", "units", "agrees")
    return metrics, Table(title=f"Exit depth at confidence {tau:g}", columns=columns, rows=tuple(rows))


def _text_metrics(name: str, text: Exits, units: Units) -> list[Metric]:
    blocks = len(units.text_NT)
    value, error = slope(text.surprisal_n, text.depth_n, text.unit_n)
    return [
        mean_metric(f"{name}/exit_depth", units.split, unit_means(text.depth_n, text.unit_n, blocks), "layers"),
        mean_metric(f"{name}/exit_agreement", units.split, unit_means(1.0 * text.agrees_n, text.unit_n, blocks)),
        Metric(
            name=f"{name}/exit_depth_slope",
            split=units.split,
            value=value,
            stderr=error,
            n=blocks,
            unit="layers/bit of surprisal",
        ),
    ]


def _text_rows(name: str, text: Exits, blocks: int) -> list[tuple[Cell, ...]]:
    easy = text.surprisal_n <= EASY_BITS
    chosen = {"text: easy tokens": easy, "text: hard tokens": ~easy}
    return [(name, on, *_cells(text, mask, blocks)) for on, mask in chosen.items() if mask.any()]


def _cells(exits: Exits, mask: Values, units: int) -> tuple[Cell, ...]:
    """Mean depth over the masked tokens' units, its standard error, units, agreement."""
    depth = unit_means(exits.depth_n[mask], exits.unit_n[mask], units)
    agrees = unit_means(1.0 * exits.agrees_n[mask], exits.unit_n[mask], units)
    seen = ~np.isnan(depth)
    return float(depth[seen].mean()), standard_error(depth[seen]), int(seen.sum()), float(agrees[seen].mean())


def _items(
    name: str, model: Any, tokenizer: Any, units: Units, speciality: str, tau: float
) -> tuple[Metric, list[tuple[Cell, ...]]]:
    """Slope of an item's mean exit depth on its difficulty within its task, and a row for each difficulty."""
    items = units.items[speciality]
    exits = item_exits(model, tokenizer, items, tau)
    depth = unit_means(exits.depth_n, exits.unit_n, len(items))
    agrees = unit_means(1.0 * exits.agrees_n, exits.unit_n, len(items))
    tasks = [item.task for item in items]
    difficulty = np.array([float(item.difficulty) for item in items])
    value, error = slope(within(difficulty, tasks), within(depth, tasks), np.arange(len(items)))
    metric = Metric(
        name=f"{name}/{speciality}_exit_depth_slope",
        split=units.split,
        value=value,
        stderr=error,
        n=len(items),
        unit="layers/step of difficulty",
    )

    def group(item: Item) -> tuple[str | int, ...]:
        return item.task, item.difficulty

    share = {label: mean for label, mean, _, _ in by_group(items, agrees, group)}
    return metric, [(name, k, mean, se, n, share[k]) for k, mean, se, n in by_group(items, depth, group)]
