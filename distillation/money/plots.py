"""Pictures of the money: cumulative cost with and without the student, and what the saving depends on.

    for name, figure in pictures(assessment).items():
        figure.savefig(name)

Bands are the simulation's 10 % and 90 % quantiles. What is not known is not drawn.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillation.money.assessment import Assessment
from distillation.money.month import DAYS_PER_MONTH, Floats
from evaluation.plots import new_figure

WITHOUT, WITH, MARK = "C3", "C0", "black"


def pictures(assessment: Assessment) -> dict[str, Figure]:
    """File name to figure: what can be drawn."""
    drawn = {}
    costs = (assessment.figures[name].value for name in ("cost_without_usd_per_month", "cost_with_usd_per_month"))
    if assessment.invested_usd is not None and None not in costs:
        drawn["cumulative-cost.png"] = cumulative_cost(assessment)
    if assessment.sensitivity:
        drawn["sensitivity.png"] = tornado(assessment)
    return drawn


def cumulative_cost(assessment: Assessment) -> Figure:
    """USD spent by each day with and without the student, the break-even marked."""
    figure, axes = new_figure("Cumulative cost", "days with the student", "USD")
    days = np.linspace(0.0, assessment.horizon_months * float(DAYS_PER_MONTH), 61)
    odds = assessment.odds
    without_band, with_band = (None, None) if odds is None else (odds.without_band, odds.with_band)
    _line(axes, days, 0.0, _month(assessment, "without"), without_band, WITHOUT, "teacher alone")
    _line(axes, days, assessment.invested_usd or 0.0, _month(assessment, "with"), with_band, WITH, "with the student")
    day = assessment.break_even_day
    if day is not None and day <= days[-1]:
        axes.axvline(day, color=MARK, linestyle=":", linewidth=1.0)
        usd = _month(assessment, "without") * day / float(DAYS_PER_MONTH)
        axes.plot([day], [usd], marker="o", color=MARK, linestyle="", label=f"break-even, day {day:.0f}")
    axes.set_xlim(0, days[-1])
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return figure


def tornado(assessment: Assessment) -> Figure:
    """The saving of a month at the 10 % and 90 % quantile of each figure."""
    figure, axes = new_figure("What the saving depends on", "USD saved a month", "", (7.0, 3.2))
    middle = assessment.saved_usd_per_month or 0.0
    for place, row in enumerate(assessment.sensitivity):
        for usd, colour, label in ((row.saving_at_low, "C1", "low (10 %)"), (row.saving_at_high, "C2", "high (90 %)")):
            axes.barh(place, usd - middle, left=middle, color=colour, height=0.6, label=None if place else label)
    axes.axvline(middle, color=MARK, linewidth=0.8)
    axes.set_yticks(range(len(assessment.sensitivity)), [row.name for row in assessment.sensitivity])
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8)
    return figure


def _month(assessment: Assessment, which: str) -> float:
    usd = assessment.figures[f"cost_{which}_usd_per_month"].as_float
    assert usd is not None, "only what is known is drawn"
    return usd


def _line(
    axes: Axes, days: Floats, start: float, usd_a_month: float, band: Floats | None, colour: str, label: str
) -> None:
    axes.plot(days, start + usd_a_month * days / float(DAYS_PER_MONTH), color=colour, label=label)
    if band is not None:
        axes.fill_between(days, band[0], band[2], color=colour, alpha=0.15, linewidth=0)
