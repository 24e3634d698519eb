"""How far the figures that money depends on may be off, as distributions given by their quantiles.

Traffic and prices are lognormal with the stated mean and coefficient of variation: they stay above 0, and double as
easily as they halve. The share that is sent on to the teacher is beta with the stated mean and the weight of `n`
requests. Extra errors are normal, as a measured difference is, cut off at 0 and 1: that a student may be better than
its teacher is not counted as money. All are independent of each other.
"""

import math

import numpy as np
from pydantic import Field
from scipy.special import betaincinv, ndtri

from distillation.money.month import Floats, Month
from phases.strict import StrictModel


class UncertaintyConfig(StrictModel):
    """How far the figures may be off; 0: not at all."""

    requests_cv: float = Field(default=0.3, ge=0)
    """Coefficient of variation (standard deviation by mean) of the traffic."""
    teacher_price_cv: float = Field(default=0.1, ge=0)
    """Of what a request costs at the teacher."""
    student_price_cv: float = Field(default=0.2, ge=0)
    """Of what a request costs at the student: its speed and utilisation are rarely as planned."""
    escalation_n: int = Field(default=100, ge=1)
    """Requests that the share of escalations was seen on."""
    draws: int = Field(default=20_000, ge=100, le=1_000_000)
    """Of the simulation."""
    day: float = Field(default=30, gt=0)
    """The day by which the investment should have come back."""


UNCERTAIN = ("requests", "teacher_usd", "student_usd", "escalation", "extra_errors")
"""Fields of a `Month` that have a distribution."""


def lognormal_quantile(mean: float, cv: float, at: Floats) -> Floats:
    """(n,) quantiles of the lognormal with this mean and coefficient of variation."""
    sigma = math.sqrt(math.log1p(cv**2))
    return np.asarray(mean * np.exp(sigma * ndtri(at) - sigma**2 / 2))


def beta_quantile(mean: float, n: float, at: Floats) -> Floats:
    """(n,) quantiles of Beta(mean·n, (1 − mean)·n); a mean of 0 or 1 is certain."""
    if mean in (0.0, 1.0):
        return np.full_like(at, mean)
    return np.asarray(betaincinv(mean * n, (1 - mean) * n, at))


def normal_share_quantile(mean: float, stderr: float, at: Floats) -> Floats:
    """(n,) quantiles of the normal, cut off at 0 and 1."""
    return np.asarray(np.clip(mean + stderr * ndtri(at), 0.0, 1.0))


def quantile(name: str, month: Month[Floats], config: UncertaintyConfig, errors_stderr: float, at: Floats) -> Floats:
    """(n,) quantiles of one of `UNCERTAIN` around its value in `month`."""
    mean = float(getattr(month, name))
    if name == "escalation":
        return beta_quantile(mean, config.escalation_n, at)
    if name == "extra_errors":
        return normal_share_quantile(mean, errors_stderr, at)
    cv = {"requests": config.requests_cv, "teacher_usd": config.teacher_price_cv}.get(name, config.student_price_cv)
    return lognormal_quantile(mean, cv, at)
