"""Pictures of adas: quality against work, the search over its iterations, gains by domain."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from evaluation.judgement import Table
from evaluation.plots import new_figure
from phases.adas.archive import Record
from phases.adas.genome import PARENT
from phases.adas.pareto import ranks
from phases.adas.report import ARCHIVE, CONTROL, read_report
from phases.json_lines import read_lines


def pareto_plot(ours: Sequence[Record], random: Sequence[Record]) -> Figure:
    """Mean quality against work of all designs at the highest rung that each reached, and the front of ours.

    Rungs differ in their conversations, so only designs of the highest are on the front.
    """
    figure, axes = new_figure("Designs: quality against work (validation)", "work, × parent", "right", (6.4, 4.0))
    top = max(record.rung for record in ours)
    for records, label, colour in ((random, "random search", "C7"), (ours, "evolution", "C0")):
        last = _played(records, top)
        axes.scatter(
            [r.scores.work for r in last], [r.scores.mean for r in last], s=14, color=colour, label=label, alpha=0.7
        )
    last = _played(ours, top)
    points = [(record.scores.mean, record.scores.work) for record in last]
    line = sorted((work, mean) for (mean, work), rank in zip(points, ranks(points), strict=True) if rank == 0)
    axes.step([w for w, _ in line], [q for _, q in line], where="post", color="C0", linewidth=1)
    for record in (record for record in last if record.genome == PARENT):
        axes.scatter(
            [record.scores.work], [record.scores.mean], marker="*", s=120, color="C3", label="parent", zorder=3
        )
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _played(records: Sequence[Record], rung: int) -> list[Record]:
    """Who played a rung to its end: of those that were stopped nothing is known but their work."""
    return [record for record in records if record.rung == rung and not record.scores.stopped]


def iteration_curves(ours: Sequence[float], random: Sequence[float]) -> Figure:
    """Fitness of the best so far after each iteration."""
    figure, axes = new_figure("Best design so far (lowest rung)", "iteration", "fitness", (5.2, 3.4))
    axes.plot(range(len(random)), random, color="C7", label="random search")
    axes.plot(range(len(ours)), ours, color="C0", label="evolution")
    axes.legend(frameon=False, fontsize=8)
    return figure


def gain_bars(table: Table) -> Figure:
    """Gain over the parent by domain, ± two standard errors (`adas_report`)."""
    figure, axes = new_figure(table.title, "", "gain in share right", (7.0, 3.4))
    gain, error = (table.columns.index(name) for name in ("gain", "gain ±"))
    values, errors = (np.array([float(row[column] or 0) for row in table.rows]) for column in (gain, error))
    axes.bar(range(len(values)), values, yerr=2 * errors, capsize=3, color="C0")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(values)), [str(row[0]) for row in table.rows], rotation=20)
    return figure


def archive_figures(checkpoint: Path) -> dict[str, Figure]:
    """The pictures of an adas checkpoint's archives, by file name."""
    ours, random = (read_lines(checkpoint / name, Record.model_validate) for name in (ARCHIVE, CONTROL))
    found = read_report(checkpoint)
    return {
        "pareto.png": pareto_plot(ours, random),
        "search.png": iteration_curves(found.evolution.best, found.control.best),
    }
