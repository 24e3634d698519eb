"""Pictures of a ternary model: how its codes moved in training, how its scales lie, what its size costs."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from evaluation.judgement import Table
from evaluation.plots import Curve, new_figure, points
from evaluation.ternary_report import kind_of
from phases.bitnet.lattice import Lattice

CURVES = {
    "strength": "strength of the quantisation",
    "zeros": "zeros",
    "codes_changed_since_start": "changed since the start",
    "codes_changed_since_last": "changed since the last point",
    "signs_flipped_since_start": "sign flipped since the start",
}


def code_curves(curves: Mapping[str, Curve]) -> Figure:
    """Shares of the ternary codes that are zero, that changed, and whose sign flipped, against the step."""
    figure, axes = new_figure("Ternary codes in training", "step", "share of the codes")
    for index, (name, label) in enumerate(CURVES.items()):
        if curves.get(name):
            style = {"linestyle": "--", "color": "grey"} if name == "strength" else {"color": f"C{index}"}
            axes.plot(*points(curves[name]), label=label, linewidth=1.6, **style)
    axes.legend(frameon=False)
    return figure


def scale_histogram(lattices: Mapping[str, Lattice]) -> Figure:
    """How many groups have which scale, by kind of layer."""
    kinds: dict[str, list[float]] = {}
    for name, lattice in lattices.items():
        kinds.setdefault(kind_of(name), []).extend(lattice.scale_OG.float().flatten().tolist())
    positive = {kind: np.array([s for s in scales if s > 0]) for kind, scales in kinds.items()}
    every = np.concatenate([np.ones(0), *positive.values()])
    bins = np.geomspace(every.min() / 1.05, every.max() * 1.05, 40) if len(every) else np.array([0.5, 1.0])
    figure, axes = new_figure("Scales of the groups", "scale γ", "groups")
    for index, (kind, scales) in enumerate(positive.items()):
        axes.hist(scales, bins=list(bins), histtype="step", linewidth=1.4, color=f"C{index}", label=kind)
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8)
    return figure


def size_against_quality(table: Table) -> Figure:
    """Bits per byte against the bytes of the weights, for everything in the table of rivals."""
    figure, axes = new_figure(table.title, "bytes of the weights", "bits per byte", (7.4, 4.6))
    for index, (name, size, _, bits, error, *_) in enumerate(table.rows):
        x, y = float(size or 0), float(bits or 0)
        axes.errorbar(
            x, y, yerr=float(error or 0), marker="o", capsize=3, linestyle="none", color=f"C{index}", label=name
        )
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8)
    return figure
