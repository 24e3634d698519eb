"""How sure a saving is: Monte Carlo over traffic, prices, escalations and errors; and which of them matters most.

    odds = simulate(month, known(120), config, errors_stderr=0.01, horizon_months=12, seed=0)
    odds.probability, odds.stderr         # P(the investment has come back by day 30), and how exact that is

A draw is one world: its traffic and prices stay as drawn. Same seed, same bytes. The sensitivity table needs no draws:
each figure in turn stands at its 10 % and 90 % quantile while the others stay, which is what a tornado plot shows.
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np

from distillation.money.amount import Amount
from distillation.money.month import DAYS_PER_MONTH, Floats, Month, cost_with, cost_without, saving
from distillation.money.uncertainty import UNCERTAIN, UncertaintyConfig, quantile

LOW, HIGH = 0.1, 0.9
"""The quantiles of bands and of the sensitivity table."""


@dataclass(frozen=True, slots=True)
class Odds:
    """What the simulation says."""

    probability: float
    """That the investment has come back by the day."""
    stderr: float
    """Of the probability, from the number of draws; never 0, as no finite number of draws makes certain."""
    draws: int
    day: float
    saving_low: float
    """USD a month, 10 % quantile."""
    saving_median: float
    saving_high: float
    days: Floats
    """(D,) of the bands."""
    without_band: Floats
    """(3, D) cumulative USD without the student: low, median, high."""
    with_band: Floats
    """(3, D) with it, its making included."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What one figure does to a month's saving."""

    name: str
    low: float
    """Its 10 % quantile."""
    high: float
    saving_at_low: float
    """USD a month."""
    saving_at_high: float

    @property
    def swing(self) -> float:
        """USD a month between the two."""
        return abs(self.saving_at_high - self.saving_at_low)


def as_floats(month: Month[Amount]) -> Month[Floats]:
    """The known amounts as arrays of no dimension."""
    values = {field.name: getattr(month, field.name).as_float for field in fields(month)}
    assert None not in values.values(), "only what is known can be simulated"
    return Month(**{name: np.asarray(value, np.float64) for name, value in values.items()})


def simulate(
    month: Month[Amount],
    invested: Amount,
    config: UncertaintyConfig,
    *,
    errors_stderr: float,
    horizon_months: int,
    seed: int,
) -> Odds:
    """The odds that the investment comes back by the day, and bands of the cumulative costs over the horizon."""
    assert invested.value is not None
    means, spent = as_floats(month), float(invested.value)
    at = np.random.default_rng(seed).uniform(np.finfo(float).tiny, 1.0, (len(UNCERTAIN), config.draws))
    drawn = {name: quantile(name, means, config, errors_stderr, u) for name, u in zip(UNCERTAIN, at, strict=True)}
    worlds = replace(means, **drawn)
    saved = saving(worlds)
    back = int(np.count_nonzero(saved * (config.day / float(DAYS_PER_MONTH)) > spent))
    low, median, high = (float(q) for q in np.quantile(saved, (LOW, 0.5, HIGH)))
    days = np.linspace(0.0, horizon_months * float(DAYS_PER_MONTH), 61)
    without_band = _band(cost_without(worlds), days)
    with_band = spent + _band(cost_with(worlds), days)
    share = back / config.draws
    return Odds(
        share, proportion_stderr(back, config.draws), config.draws, config.day, low, median, high, days, without_band,
        with_band,
    )  # fmt: skip


def proportion_stderr(hits: int, draws: int) -> float:
    """Standard error of hits/draws by the Agresti–Coull centre (two more of each), so that 0 of n is not certain."""
    share = (hits + 2) / (draws + 4)
    return math.sqrt(share * (1 - share) / (draws + 4))


def sensitivities(month: Month[Amount], config: UncertaintyConfig, errors_stderr: float) -> tuple[Sensitivity, ...]:
    """The monthly saving at the ends of each figure, the widest first."""
    means = as_floats(month)
    rows = []
    for name in UNCERTAIN:
        low, high = quantile(name, means, config, errors_stderr, np.array([LOW, HIGH]))
        at_low, at_high = (float(saving(replace(means, **{name: np.asarray(value)}))) for value in (low, high))
        rows.append(Sensitivity(name, float(low), float(high), at_low, at_high))
    return tuple(sorted(rows, key=lambda row: (-row.swing, row.name)))


def _band(usd_a_month: Floats, days: Floats) -> Floats:
    """(3, D) cumulative: quantiles are taken once, as a world's cost grows evenly."""
    quantiles = np.quantile(usd_a_month, (LOW, 0.5, HIGH))
    return np.asarray(quantiles[:, None] * (days / float(DAYS_PER_MONTH)))
