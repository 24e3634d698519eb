"""Pictures of a night: how much of the teacher is kept, what more data would bring, which teacher for which money."""

import numpy as np
from matplotlib.figure import Figure

from distillation.teachers.ranking import Ranking
from distillation.training.data_size import DataSize
from distillation.validation.gate import Verdicts
from evaluation.plots import new_figure

COLOURS = {"pass": "C2", "fail": "C3", "not enough data": "C7"}


def agreement(verdicts: Verdicts) -> Figure:
    """Every criterion's share of the teacher with its 90 % interval, and the share that is asked for."""
    shown = [one for one in verdicts.criteria if one.kept.ratio is not None]
    figure, axes = new_figure("Student over teacher (90 % interval)", "share of the teacher", "")
    for row, one in enumerate(reversed(shown)):
        kept = one.kept
        colour = COLOURS[one.verdict]
        axes.plot([kept.low, kept.high], [row, row], color=colour, linewidth=1.5)
        axes.plot(kept.ratio, row, marker="o" if one.role == "gate" else ".", color=colour)
        axes.plot([kept.asked, kept.asked], [row - 0.35, row + 0.35], color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [one.name for one in reversed(shown)], fontsize=7)
    figure.set_size_inches(7, 1.2 + 0.24 * len(shown))
    return figure


def learning_curve(curve: DataSize) -> Figure:
    """Held-out loss by number of records, the power law through it, and what twice as much would bring."""
    figure, axes = new_figure("Learning curve", "training records", "held-out nats a token")
    sizes = np.array([point.records for point in curve.points], dtype=np.float64)
    losses, errors = [point.loss for point in curve.points], [point.stderr for point in curve.points]
    axes.errorbar(sizes, losses, yerr=errors, fmt="o", color="C0", capsize=3, label="measured ± standard error")
    along = np.geomspace(sizes.min(), 2 * sizes.max(), 60)
    axes.plot(along, [curve.law.at(float(n)) for n in along], color="C1", label="power law")
    axes.axvline(sizes.max(), color="black", linestyle=":", linewidth=0.8, label="all there is")
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8)
    return figure


def quality_cost(ranking: Ranking) -> Figure:
    """Teachers by what a question costs and how well it is answered; those without a price on the left edge."""
    figure, axes = new_figure("Teachers", "USD a question (0: price not known)", "score")
    for one in ranking.standings:
        usd = one.usd_per_question or 0.0
        axes.errorbar([usd], [one.score], yerr=[[one.score - one.low], [one.high - one.score]], fmt="o", capsize=3)
        axes.annotate(one.teacher, (usd, one.score), xytext=(6, 4), textcoords="offset points", fontsize=8)
    return figure
