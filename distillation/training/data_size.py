"""How much data is enough: a learning curve over nested subsets, a power law through it, and what more would bring.

    curve = data_size(points, total, DataSizeConfig())        # points: (records, held-out losses one a record)
    curve.enough, curve.reason

A short training on 12.5, 25, 50 and 100 % of the records gives held-out losses L(n), and L(n) = a + b · n^(−c) with
a ≥ 0, b ≥ 0 and 0.05 ≤ c ≤ 2 is fitted (Hestness et al., arXiv 1712.00409). The gain from doubling the data is
L(N) − L(2N). Its interval comes from resampling the held-out records, the same for all points (a paired bootstrap),
with a fit each: it covers which questions are asked, not the luck of one training. Every point costs a short training;
where the curve is flat before all questions are answered, the others are never paid for.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from distillation.record import Record
from phases.errors import DataError
from phases.strict import StrictModel

EXPONENTS = np.linspace(0.05, 2.0, 79)
"""Of the power law: tried one by one, for what is left is linear."""
Values = npt.NDArray[np.float64]
LEAST_POINTS = 3
"""Sizes that a curve takes: two lie on every one."""


class DataSizeConfig(StrictModel):
    """Whether more data would help."""

    shares: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    """Nested subsets of the training questions; each is answered when its turn comes."""
    steps: int = Field(100, ge=1)
    """Of each subset's training: all alike, so that only the data differ."""
    least_gain: float = Field(0.01, gt=0)
    """Nats a token that twice as much data has to bring to be worth while."""
    resamples: int = Field(400, ge=50)
    """Of the held-out records."""

    @field_validator("shares")
    @classmethod
    def _grow(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if len(shares) < LEAST_POINTS or sorted(set(shares)) != list(shares) or not shares[0] > 0 or shares[-1] > 1:
            raise ValueError(f"give at least {LEAST_POINTS} ascending shares above 0 and at most 1")
        return shares


@dataclass(frozen=True)
class PowerLaw:
    """L(n) = a + b · n^(−c)."""

    a: float
    b: float
    c: float

    def at(self, n: float) -> float:
        """Predicted loss, nats a token."""
        return float(self.a + self.b * n**-self.c)


@dataclass(frozen=True)
class CurvePoint:
    """One training."""

    records: int
    loss: float
    """Held out, nats a token."""
    stderr: float
    accuracy: float
    fitted: float
    """What the power law says."""


@dataclass(frozen=True)
class DataSize:
    """The curve and what follows from it."""

    points: tuple[CurvePoint, ...]
    law: PowerLaw
    gain: float
    """Of twice as much data, nats a token."""
    low: float
    """Of a 95 % interval of the gain."""
    high: float
    enough: bool
    """Whether more data is not shown to be worth while."""
    reason: str

    def as_json(self) -> dict[str, Any]:
        """For a report and a plot."""
        return asdict(self)


def subset(records: Sequence[Record], share: float, seed: int) -> list[Record]:
    """A share of the records, in their order; subsets of one seed are nested, and hold each group alike.

    At least one record of each group stays: a curve should not begin with whole tasks missing.
    """
    generator, kept = np.random.default_rng([seed, 53]), set()
    groups: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        groups.setdefault(record.group, []).append(index)
    for name in sorted(groups):
        order = generator.permutation(len(groups[name]))
        kept |= {groups[name][i] for i in order[: max(1, round(share * len(order)))]}
    return [record for index, record in enumerate(records) if index in kept]


def fit_power_laws(records_P: Sequence[int], loss_RP: Values) -> list[PowerLaw]:
    """Of each row the law with least squared error, over a, b ≥ 0 for every exponent; of equal ones the smallest."""
    n_P = np.asarray(records_P, dtype=np.float64)
    best_R = np.full(len(loss_RP), np.inf)
    found_R3 = np.zeros((len(loss_RP), 3))
    for c in EXPONENTS:
        x_P = (n_P / n_P[0]) ** -c  # near 1, for the numbers' sake
        a_R, b_R = _non_negative_line(x_P, loss_RP)
        error_R = ((a_R[:, None] + b_R[:, None] * x_P - loss_RP) ** 2).sum(1)
        better = error_R < best_R - 1e-15
        best_R[better] = error_R[better]
        found_R3[better] = np.stack([a_R, b_R * n_P[0] ** c, np.full_like(a_R, c)], axis=1)[better]
    return [PowerLaw(float(a), float(b), float(c)) for a, b, c in found_R3]


def _non_negative_line(x_P: Values, y_RP: Values) -> tuple[Values, Values]:
    """((R,) a, (R,) b) ≥ 0 of least Σ (a + b · x − y)², for positive x and y."""
    centred = x_P - x_P.mean()
    b_R = y_RP @ centred / (centred @ centred)
    a_R = y_RP.mean(1) - b_R * x_P.mean()
    falling, through = b_R < 0, a_R < 0
    b_R = np.where(falling, 0.0, np.where(through, y_RP @ x_P / (x_P @ x_P), b_R))
    a_R = np.where(falling, y_RP.mean(1), np.where(through, 0.0, a_R))
    return a_R, b_R


def data_size(
    sizes_P: Sequence[int], nats_PN: Values, right_PN: Values, config: DataSizeConfig, seed: int = 0
) -> DataSize:
    """Fit and judge: `nats_PN` are the held-out records' losses after training on each number of records.

    Raises `DataError` with fewer than three different sizes: two points lie on every curve.
    """
    if len(set(sizes_P)) < LEAST_POINTS or len(sizes_P) != len(nats_PN):
        raise DataError(
            f"data_size: {len(set(sizes_P))} different sizes of subsets, and a curve needs three: give more records or "
            "shares"
        )
    total, n = max(sizes_P), nats_PN.shape[1]
    law = fit_power_laws(sizes_P, nats_PN.mean(1)[None])[0]
    drawn_RN = np.random.default_rng([seed, 59]).integers(n, size=(config.resamples, n))
    laws = fit_power_laws(sizes_P, np.stack([nats_PN[:, chosen].mean(1) for chosen in drawn_RN]))
    gains = [one.at(total) - one.at(2 * total) for one in laws]
    gain, (low, high) = law.at(total) - law.at(2 * total), np.quantile(gains, [0.025, 0.975])
    errors_P = nats_PN.std(1, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(nats_PN), np.nan)
    points = tuple(
        CurvePoint(size, float(nats.mean()), float(error), float(right.mean()), law.at(size))
        for size, nats, error, right in zip(sizes_P, nats_PN, errors_P, right_PN, strict=True)
    )
    told = f"twice {total:,} records would bring {gain:.3f} nats a token (95 % {low:.3f} to {high:.3f})"
    if low < 1e-9:
        enough, reason = True, f"enough: {told}, which may be nothing"
    elif gain < config.least_gain:
        enough, reason = True, f"enough: {told}, less than the {config.least_gain} that is asked for"
    else:
        enough, reason = False, f"more would help: {told}"
    return DataSize(points, law, float(gain), float(low), float(high), enough, reason)


def _gained(gain_N: Values) -> float:
    """Upper end of a 95 % interval of the mean; infinite for one question."""
    n = len(gain_N)
    return float(gain_N.mean() + 1.96 * gain_N.std(ddof=1) / np.sqrt(n)) if n > 1 else float("inf")


def learning_curve(
    config: DataSizeConfig,
    seed: int,
    answered: Callable[[float], Sequence[Record]],
    train_on: Callable[[Sequence[Record], float], tuple[Values, Values]],
) -> tuple[DataSize, float]:
    """Train on ever larger subsets until the curve is flat; (the curve, the share that is enough).

    `answered(share)` gives the records of a share, which may have to be asked for; `train_on(records, share)` the
    held-out records' nats after training on them, and which are right. Flat is what is shown to be, twice: the upper
    end of the interval of what twice as much would bring is below `least_gain`, and so is that of what the last
    subset brought, question by question. Neither knows of the luck of one training.
    """
    sizes, nats, right = [], [], []
    for share in config.shares:
        chosen = answered(share)
        found = train_on(chosen, share)
        sizes.append(len(chosen))
        nats.append(found[0])
        right.append(found[1])
        if len(set(sizes)) < LEAST_POINTS and share < config.shares[-1]:
            continue
        curve = data_size(sizes, np.stack(nats), np.stack(right), config, seed)
        if curve.high < config.least_gain and _gained(nats[-2] - nats[-1]) < config.least_gain:
            break
    return curve, share
