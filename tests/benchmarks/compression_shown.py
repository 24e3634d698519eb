"""The figures of `compression_curves` as text, JSON and a picture."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from evaluation.plots import new_figure
from evaluation.ratio import bits_per_byte
from evaluation.retention import Share, retained
from tests.benchmarks.compression_curves import FLOAT, MIXED, TRAINED, UNTRAINED, Point, Verdict, families, kept

COLOURS = colormaps["tab20"]


def rate_table(points: Sequence[Point], parent: Point, parameters: int) -> str:
    """Aligned plain text, the smallest first."""
    lines = [
        f"{'way':28} {'setting':22} {'bytes':>9} {'bits':>6} {'tasks kept':>15} {'text kept':>15} {'bits per byte':>16}"
    ]
    for point in sorted(points, key=lambda point: point.file_bytes):
        bits = bits_per_byte(point.text, "", "")
        lines.append(
            f"{point.family:28} {point.setting:22} {point.file_bytes:9,} {8 * point.file_bytes / parameters:6.2f} "
            f"{shown(kept(point, parent)):>15} {shown(retained(parent.text.nats_N, point.text.nats_N)):>15} "
            f"{shown((bits.value, bits.stderr)):>16}  {point.note}".rstrip()
        )
    return "\n".join(lines)


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Aligned plain text."""
    lines = [f"{'rival':28} {'setting':30} {'at':18} {'tasks kept':>17} {'bits per byte':>17}  we are"]
    for one in verdicts:
        lines.append(
            f"{one.rival:28} {one.setting:30} {one.where:18} {shown(one.tasks, '+'):>17} {shown(one.bits, '+'):>17}  "
            f"{one.word}"
        )
    return "\n".join(lines)


def shown(share: Share | None, sign: str = "") -> str:
    """`0.925 ± 0.015`."""
    if share is None:
        return "–"
    return f"{share[0]:{sign}.3f}" + ("" if share[1] is None else f" ± {share[1]:.3f}")


def draw(points: Sequence[Point], parent: Point, parameters: int) -> Figure:
    """Tasks kept and bits per byte against bits a parameter, a line a family."""
    figure, _ = new_figure("", "", "", (11.0, 5.2))
    figure.clear()
    axes = [figure.add_subplot(1, 2, place) for place in (1, 2)]
    ours = {TRAINED: "red", UNTRAINED: "gold", MIXED: "black"}
    for number, (family, curve) in enumerate(sorted(families(points).items(), key=lambda pair: pair[0] in ours)):
        bits = [8 * point.file_bytes / parameters for point in curve]
        shares = [kept(point, parent) or (math.nan, None) for point in curve]
        losses = [bits_per_byte(point.text, "", "") for point in curve]
        marker, size, width = ("*", 12, 2.2) if family in ours else ("osD^v"[number % 5], 4, 1.0)
        look: dict[str, Any] = {"marker": marker, "markersize": size, "linewidth": width, "capsize": 2, "elinewidth": 1}
        colour = ours.get(family, COLOURS(number % COLOURS.N))
        for axis, pairs in ((axes[0], shares), (axes[1], [(loss.value, loss.stderr) for loss in losses])):
            errors = [error or 0.0 for _, error in pairs]
            axis.errorbar(bits, [value for value, _ in pairs], errors, color=colour, label=family, **look)
    for axis, label in zip(axes, ("right answers kept of the parent's, tasks", "bits per byte, text"), strict=True):
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks := [1, 1.5, 2, 3, 4, 6, 8, 16, 32], [f"{tick:g}" for tick in ticks])
        axis.set_xlabel("bits a parameter, of the whole file")
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
    best = bits_per_byte(parent.text, "", "").value
    axes[0].set_ylim(0, 1.15)
    axes[1].set_ylim(0.98 * best, 1.6 * best)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def as_rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Points for the JSON, without their units."""
    parent, rows = families(points)[FLOAT][0], []
    for point in points:
        bits = bits_per_byte(point.text, "", "")
        rows.append(
            {
                "way": point.family,
                "setting": point.setting,
                "tensor_bytes": point.tensor_bytes,
                "file_bytes": point.file_bytes,
                "tasks_kept": kept(point, parent),
                "kept": {name: retained(values, parent.tasks[name]) for name, values in point.tasks.items()},
                "text_kept": retained(parent.text.nats_N, point.text.nats_N),
                "bits_per_byte": (bits.value, bits.stderr),
                "n": {**{name: len(values) for name, values in point.tasks.items()}, "text": bits.n},
                "note": point.note,
            }
        )
    return rows
