"""Pictures of a run, as matplotlib figures: loss curves, the matrix of specialities, the evolution's fitness.

Drawn on the Agg canvas without pyplot: no display is needed and no global state is left behind.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.judgement import Table

Floats = npt.NDArray[np.float64]
Curve = Sequence[tuple[float, float]]
"""(x, y) points in order."""


def loss_curves(curves: Mapping[str, Curve], title: str = "Training loss") -> Figure:
    """Loss against step, one line a model; light raw points under a running mean."""
    figure, axes = new_figure(title, "step", "loss (nats/token)")
    for index, (name, curve) in enumerate(curves.items()):
        x, y = points(curve)
        axes.plot(x, y, color=f"C{index}", alpha=0.25, linewidth=0.8)
        axes.plot(x, running_mean(y, max(1, len(y) // 25)), color=f"C{index}", label=name, linewidth=1.6)
    if curves:
        axes.legend(frameon=False)
    return figure


def running_mean(values: Floats, window: int) -> Floats:
    """(n,) the mean of each value and up to `window` − 1 before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - window)
    return np.asarray((sums[end] - sums[start]) / (end - start))


def thought_curves(curves: Mapping[str, Curve], title: str = "Thoughts while they were learnt") -> Figure:
    """One panel each for reward, mixing weight and entropy against step, as far as there are such curves."""
    labels = {
        "reward": "reward (nats over the true tokens)",
        "mixing_weight": "weight of the thought",
        "thought_entropy": "entropy (nats/token)",
    }
    drawn = [name for name in labels if curves.get(name)]
    figure, _ = new_figure("", "", "", (3.6 * max(1, len(drawn)), 3.2))
    figure.clear()
    figure.suptitle(title, fontsize=11)
    for index, name in enumerate(drawn):
        axes = figure.add_subplot(1, len(drawn), index + 1)
        x, y = points(curves[name])
        axes.plot(x, y, color=f"C{index}", linewidth=1.4)
        axes.set_xlabel("step")
        axes.set_title(labels[name], fontsize=9)
        axes.grid(alpha=0.25)
        if name == "reward":
            axes.axhline(0.0, color="grey", linewidth=0.8)
    return figure


def thought_gains(table: Table) -> Figure:
    """Nats a token saved over no thought, with standard errors, against the thought's length (`length_table`)."""
    figure, axes = new_figure(table.title, "thought tokens", "gain (nats/token)")
    lengths = [float(row[0] or 0) for row in table.rows]
    for index in range(2, len(table.columns), 2):
        gains, errors = ([float(row[i] or 0) for row in table.rows] for i in (index, index + 1))
        axes.errorbar(lengths, gains, yerr=errors, marker="o", capsize=3, label=table.columns[index])
    axes.axhline(0.0, color="grey", linewidth=0.8)
    axes.legend(frameon=False)
    return figure


def matrix_heat_map(table: Table) -> Figure:
    """Models × specialities with value ± standard error; colour is relative within each column.

    The table is `specialities.matrix_table`'s: a name, then pairs of value and error.
    """
    columns = [name for name in table.columns[1:] if not name.endswith("±")]
    models = [str(row[0]) for row in table.rows]
    values = np.array([[float(v or 0) for v in row[1::2]] for row in table.rows])
    low, high = values.min(0), values.max(0)
    shade = (values - low) / np.where(high > low, high - low, 1.0)
    figure, axes = new_figure(table.title, "", "", (1.9 + 1.7 * len(columns), 1.4 + 0.55 * len(models)))
    axes.imshow(shade, cmap="Blues", vmin=-0.15, vmax=1.9, aspect="auto")
    for i, row in enumerate(table.rows):
        best = values[i] >= high
        for j in range(len(columns)):
            error = row[2 + 2 * j]
            text = f"{values[i, j]:.3f}" + ("" if error is None else f" ± {float(error):.3f}")
            axes.text(j, i, text, ha="center", va="center", fontsize=9, weight="bold" if best[j] else "normal")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(models)), models)
    axes.tick_params(length=0)
    axes.grid(False)
    return figure


def evolution_curves(ours: Sequence[Curve], random: Sequence[Curve], title: str = "Evolution of the merge") -> Figure:
    """Best validation fitness so far against evaluations; one thin line a seed, the mean of the seeds thick.

    Each curve is (evaluations, fitness of that candidate); the running best is taken here.
    """
    figure, axes = new_figure(title, "evaluations", "best fitness (validation)")
    for name, colour, curves in (("evolution", "C0", ours), ("random search", "C1", random)):
        best = [(points(curve)[0], np.maximum.accumulate(points(curve)[1])) for curve in curves if len(curve)]
        for x, y in best:
            axes.step(x, y, where="post", color=colour, alpha=0.35, linewidth=0.9)
        if best:
            grid = np.unique(np.concatenate([x for x, _ in best]))
            # A search that stopped early keeps its best.
            filled = [y[np.clip(np.searchsorted(x, grid, side="right") - 1, 0, len(y) - 1)] for x, y in best]
            mean = np.mean(filled, axis=0)
            axes.step(grid, mean, where="post", color=colour, linewidth=2, label=f"{name}, mean of {len(best)}")
    axes.legend(frameon=False, loc="lower right")
    return figure


def points(curve: Curve) -> tuple[Floats, Floats]:
    """(n,) abscissae and (n,) ordinates of a curve."""
    pairs = np.asarray(curve, dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def new_figure(title: str, x: str, y: str, size: tuple[float, float] = (7.0, 4.2)) -> tuple[Figure, Any]:
    """A figure of one pair of axes with our looks."""
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes
