"""Size and quality over the phases: what each phase made smaller, and what it cost or brought.

    points = journey(report)
    size_plot(report)                                      # a matplotlib figure

The size is that of the weights in the smallest form that a phase made of them: float32 before bitnet, packed after it,
the agent's file at the end. Quality is the mean share of right answers at reasoning and memory, and bits per byte, of
the model that the phase handed on, all on the same held-out items. A phase that was rolled back hands on its parent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from evaluation.metric import Metric
from evaluation.plots import new_figure
from evaluation.report import PhaseReport, Report

TASKS = ("reasoning_exact_match", "recall_accuracy")


@dataclass(frozen=True)
class Point:
    """One phase."""

    phase: str
    weight_bytes: float
    tasks: Metric | None
    """Mean share right; None where it was not measured."""
    bits_per_byte: Metric | None


def journey(report: Report) -> list[Point]:
    """Every phase that handed something on, in order."""
    points: list[Point] = []
    for phase in report.phases:
        if phase.parameters is None:
            continue
        before = points[-1] if points else None
        if phase.status != "passed" and before is not None:
            points.append(Point(phase.phase, before.weight_bytes, before.tasks, before.bits_per_byte))
            continue
        known = [share for name in TASKS if (share := _metric(phase, name)) is not None]
        points.append(Point(phase.phase, _bytes(phase, before), _mean(known), _metric(phase, "bits_per_byte")))
    return points


def size_plot(report: Report) -> Figure:
    """The figure: bytes as bars on a logarithmic axis, quality as lines above them."""
    points = journey(report)
    figure, _ = new_figure("", "", "", (7.2, 5.0))
    figure.clear()
    figure.suptitle("Size and quality, phase by phase", fontsize=11)
    above, below = figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2)
    places, names = range(len(points)), [point.phase for point in points]
    above.plot(places, _known([point.tasks for point in points]), marker="o", label="tasks: share right")
    above.set_ylim(0, 1)
    above.set_ylabel("share right")
    twin = above.twinx()
    twin.plot(
        places, _known([point.bits_per_byte for point in points]), marker="s", color="tab:red", label="bits per byte"
    )
    twin.set_ylabel("bits per byte")
    lines = [*above.get_lines(), *twin.get_lines()]
    above.legend(lines, [str(line.get_label()) for line in lines], loc="lower left")
    bars = below.bar(places, [point.weight_bytes / 1000 for point in points], color="tab:gray")
    below.bar_label(bars, [f"{point.weight_bytes / 1000:,.0f}" for point in points])
    below.set_yscale("log")
    below.set_ylabel("weights, kB")
    above.set_xticks(list(places), [""] * len(points))
    below.set_xticks(list(places), names, rotation=20)
    below.set_ylim(top=3 * max((point.weight_bytes / 1000 for point in points), default=1.0))
    return figure


def _known(metrics: Sequence[Metric | None]) -> list[float]:
    """What was not measured is a gap in the line."""
    return [math.nan if metric is None else metric.value for metric in metrics]


def _mean(shares: Sequence[Metric]) -> Metric | None:
    """Of tasks with items of their own, so that their errors are independent."""
    if not shares:
        return None
    errors = [share.stderr for share in shares if share.stderr is not None]
    return Metric(
        name="tasks",
        split=shares[0].split,
        value=sum(share.value for share in shares) / len(shares),
        stderr=math.hypot(*errors) / len(shares) if len(errors) == len(shares) else None,
        n=sum(share.n for share in shares),
        unit=shares[0].unit,
    )


def _bytes(phase: PhaseReport, before: Point | None) -> float:
    """Of the smallest form: a phase says so as a metric, else what it had before, else float32."""
    for name in (f"{phase.phase}/bytes", "packed/bytes"):
        found = next((m.value for m in phase.metrics if m.name == name), None)
        if found is not None:
            return found
    assert phase.parameters is not None
    return 4.0 * phase.parameters if before is None else before.weight_bytes


def _metric(phase: PhaseReport, name: str) -> Metric | None:
    """Of the model that was handed on; of a cognate its trunk."""
    wanted = (f"{phase.phase}/{name}", f"trunk/{name}")
    return next((m for want in wanted for m in phase.metrics if m.name == want), None)
