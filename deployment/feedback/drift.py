"""Drift: whether what is observed still is what is predicted, per system and figure, and since when it is not.

Both tests look at x = ln(observed / predicted), which is 0 for a perfect prediction:

- bias: is the mean of x other than 0? Only of what was predicted with the latest correction, as what came before it
  has been taken in. Student's t; the spread is never taken to be below the noise of repeated measurements, so that two
  lucky runs prove nothing;
- change: has the mean moved? One point in time per measurement: the loads of a sweep are its mean, not a series, so
  sweep the same loads each time. Page's two-sided CUSUM (Biometrika 41, 1954) with allowance 0.5 and threshold 5. Each
  x is standardised by those before it (self-starting, Hawkins 1987, The Statistician 36), so that a baseline of a few
  outcomes does not pass for the truth. Measured: of unchanged series of 30, 2 % alarm where the spread is the noise
  and 7 % where it is larger; a shift of two standard deviations is found after 3 outcomes, of one after 9 if at all.

    print(drift_text(drift(OutcomeStore().read(), observations())))
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist, fmean, geometric_mean, stdev

from deployment.feedback.outcome import METRICS, UNITS, Metric, Outcome
from deployment.physics.calibration_store import Observation

NOISE = {"ttft": 0.042, "tpot": 0.028, "cost": 0.028}
"""Relative standard deviation of repeated measurements of one configuration; cost follows TPOT."""
BASELINE = 8
"""Measurements that say what is usual before a change is looked for."""
ALLOWANCE, THRESHOLD = 0.5, 5.0
CONFIDENCE = 0.95
NONE_YET = "No outcomes yet: nothing was both predicted and observed."


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: geometric means of its loads."""

    at: datetime
    predicted: float
    observed: float


@dataclass(frozen=True, slots=True)
class Drift:
    """One figure of one system over time."""

    system: str
    metric: Metric
    points: tuple[Point, ...]
    ratio: float
    """Geometric mean of observed / predicted since the latest correction; 1.1: a tenth above what was predicted."""
    low: float
    high: float
    """Its 95 % interval."""
    changed_at: datetime | None
    """The measurement with which a change was certain; None: no change."""
    calibrated_since: bool = False
    """Predictions have been corrected by these outcomes: what is measured next says whether that holds."""

    @property
    def biased(self) -> bool:
        """The interval leaves out 1."""
        return not self.low <= 1 <= self.high


def drift(outcomes: Iterable[Outcome], known: Iterable[Observation] = ()) -> list[Drift]:
    """Per system and figure that was both predicted and observed, those that are off first.

    `known`: the observations that predictions are corrected by now (`deployment/physics/calibration_store.py`).
    """
    corrections = Counter(one.system for one in known)
    series: dict[tuple[str, Metric], list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.observed_at):
        for metric in METRICS:
            if outcome.log_ratio(metric) is not None:
                series.setdefault((outcome.system, metric), []).append(outcome)
    found = [_of(system, metric, listed, corrections[system]) for (system, metric), listed in series.items()]
    return sorted(found, key=lambda d: (d.changed_at is None, not d.biased, d.system, METRICS.index(d.metric)))


def change_point(log_ratios: list[float], noise: float, baseline: int = BASELINE) -> int | None:
    """Index at which the CUSUM passes its threshold, or None; at least `baseline` + 1 values are needed."""
    above = below = mean = squares = 0.0
    for index, value in enumerate(log_ratios):
        if index >= baseline:
            spread = max(noise, math.sqrt(squares / (index - 1))) * math.sqrt(1 + 1 / index)
            z = (value - mean) / spread
            above, below = max(0.0, above + z - ALLOWANCE), max(0.0, below - z - ALLOWANCE)
            if max(above, below) > THRESHOLD:
                return index
        step = value - mean  # Welford's running mean and sum of squares
        mean += step / (index + 1)
        squares += step * (value - mean)
    return None


def drift_text(drifts: list[Drift]) -> str:
    """A table with one line a system and figure, then what to do about those that are off."""
    if not drifts:
        return NONE_YET
    lines = ["system | figure | measurements | last predicted | last observed | observed / predicted | change"]
    for d in drifts:
        last, mark = d.points[-1], "biased" if d.biased else "as predicted"
        mark += ", calibrated since" if d.biased and d.calibrated_since else ""
        since = f"since {d.changed_at:%Y-%m-%d %H:%M} UTC" if d.changed_at else "none"
        lines.append(
            f"{d.system} | {d.metric} [{UNITS[d.metric]}] | {len(d.points)} | {last.predicted:.4g} | "
            f"{last.observed:.4g} | {d.ratio:.3f} ({d.low:.3f} to {d.high:.3f}, {mark}) | {since}"
        )
    if any(d.changed_at for d in drifts):
        lines.append("A system has changed: look for a new engine version, driver or load before you calibrate anew.")
    elif any(d.biased and not d.calibrated_since for d in drifts):
        lines.append("Some figures are off by a constant factor: calibrate with these outcomes.")
    elif any(d.biased for d in drifts):
        lines.append("What was off has been calibrated since: measure again to see whether predictions hold now.")
    return "\n".join(lines)


def _of(system: str, metric: Metric, outcomes: list[Outcome], corrections: int) -> Drift:
    latest = outcomes[-1].corrected_by
    ratios = [_ratio(outcome, metric) for outcome in outcomes if outcome.corrected_by == latest]
    mean, half = fmean(ratios), _half_width(ratios, NOISE[metric])
    measurements = _measurements(outcomes)
    index = change_point([fmean(_ratio(o, metric) for o in loads) for loads in measurements], NOISE[metric])
    points = tuple(
        Point(
            loads[0].observed_at,
            geometric_mean(getattr(o, f"predicted_{metric}") for o in loads),
            geometric_mean(getattr(o, f"observed_{metric}") for o in loads),
        )
        for loads in measurements
    )
    low, ratio, high = (math.exp(x) for x in (mean - half, mean, mean + half))
    changed_at = None if index is None else points[index].at
    return Drift(system, metric, points, ratio, low, high, changed_at, corrections > latest)


def _ratio(outcome: Outcome, metric: Metric) -> float:
    """Of an outcome that has both figures."""
    ratio = outcome.log_ratio(metric)
    assert ratio is not None
    return ratio


def _measurements(outcomes: list[Outcome]) -> list[list[Outcome]]:
    """The loads of one file together, at the time of the first."""
    found: dict[object, list[Outcome]] = {}
    for index, outcome in enumerate(outcomes):
        found.setdefault(outcome.measurement or index, []).append(outcome)
    return list(found.values())


def _half_width(values: list[float], noise: float) -> float:
    """Of the mean's interval: normal with the known noise, or Student's t where the values spread more."""
    count, normal = len(values), NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    known = normal * noise / math.sqrt(count)
    if count < 2:
        return known
    return max(known, _student(normal, count - 1) * stdev(values) / math.sqrt(count))


def _student(z: float, degrees: int) -> float:
    """Student's quantile from the normal one (Abramowitz & Stegun 26.7.5; exact for one and two degrees)."""
    if degrees == 1:
        return math.tan(math.pi / 2 * CONFIDENCE)
    if degrees == 2:
        return CONFIDENCE * math.sqrt(2 / (1 - CONFIDENCE**2))
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / math.pow(degrees, power) for power, term in enumerate(terms, start=1))
