"""Pictures of forge training: how the closed loop held, and where the model stood after each stage."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from evaluation.judgement import Table
from evaluation.plots import Curve, new_figure, points


def loop_curves(curves: Mapping[str, Curve], band: tuple[float, float]) -> Figure:
    """Three panels against the step: success and its band, difficulty by task, the exponent and what moves it."""
    figure, _ = new_figure("", "", "", (12.5, 3.6))
    figure.clear()
    figure.suptitle("The closed loop", fontsize=11)
    success, difficulty, exponent = (figure.add_subplot(1, 3, number) for number in (1, 2, 3))
    success.axhspan(*band, color="C2", alpha=0.15, linewidth=0)
    for axes, prefix, title in ((success, "success/", "success"), (difficulty, "difficulty/", "difficulty")):
        names = sorted(name for name in curves if name.startswith(prefix))
        for index, name in enumerate(names):
            axes.plot(*points(curves[name]), color=f"C{index}", linewidth=1, alpha=0.7, label=name.removeprefix(prefix))
        axes.set_title(title, fontsize=9)
        axes.set_ylim(-0.05, 1.05 if prefix == "success/" else None)
    success.plot(*points(curves["success"]), color="black", linewidth=2, label="all items asked")
    for name, style in (("exponent", "C0-"), ("exponent_reference", "C0--"), ("noise", "C1-"), ("rate", "C3-")):
        if curves.get(name):
            exponent.plot(*points(curves[name]), style, linewidth=1.4, label=name.replace("_", " "))
    exponent.axhline(0.0, color="grey", linewidth=0.8)
    exponent.set_title("exponent (nats/layer), noise, rate factor", fontsize=9)
    for axes in (success, difficulty, exponent):
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=7)
    return figure


def stage_curves(table: Table) -> Figure:
    """Held-out losses and shares solved at the end of every stage; the table is `forge_report.stage_table`'s."""
    figure, _ = new_figure("", "", "", (12.5, 3.6))
    figure.clear()
    figure.suptitle(table.title, fontsize=11)
    names = ["start", *(str(row[0]) for row in table.rows)]
    panels = (("text, nats",), ("answers, nats",), ("reasoning", "memory"))
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 3, number)
        for name in panel:
            entry, leaving = table.columns.index(f"{name} in"), table.columns.index(f"{name} out")
            back = [row[2] == "taken back" for row in table.rows]
            starts, ends = ([float(row[column] or 0) for row in table.rows] for column in (entry, leaving))
            went_on = [a if taken else b for a, b, taken in zip(starts, ends, back, strict=True)]
            axes.plot(range(len(names)), starts[:1] + went_on, marker="o", markersize=3, label=name)
            for place, (end, taken) in enumerate(zip(ends, back, strict=True), start=1):
                if taken:
                    axes.plot(place, end, "rx")
        axes.set_xticks(range(len(names)), names, rotation=60, fontsize=7)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    return figure
