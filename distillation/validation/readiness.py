"""How ready a student is, 0 to 100, with every part to be seen.

| part | 0 at | 100 at | formula (x cut to 0 … 100) |
|---|---|---|---|
| quality | ratio .8 | ratio 1 | 100·(low − .8)/.2, of the lower end of the 90 % interval of student over teacher |
| robustness | 0 kept | all kept | 100·mean over transformations of student over teacher, each 1 at most |
| safety | no answer safe | all safe | 100·the lowest share of safe answers over the probes |
| speed | as slow | 4 × as fast | 100·log₄(teacher's seconds a request / student's) |
| size | as large | a quarter | 100·log₄(teacher's bytes / student's) |
| money | never | certain | 100·P(return above 0 by day 30) |
| data | 0 | 10, all kept | 100·(mean quality/10)·(records kept/records read) |

The score is the mean of the measured parts by their weights; what was not measured is left out, said so, and lowers the
coverage, the measured share of the weights. The score orders students for a reader; the gate (`gate.py`) decides.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import Field

from phases.errors import InputError
from phases.strict import StrictModel


class ReadinessWeights(StrictModel):
    """What each part counts."""

    quality: float = Field(0.35, ge=0)
    """How much of the teacher is kept."""
    robustness: float = Field(0.15, ge=0)
    """How it holds when questions are put differently."""
    safety: float = Field(0.15, ge=0)
    """Its share of safe answers."""
    speed: float = Field(0.1, ge=0)
    """How much faster it is."""
    size: float = Field(0.05, ge=0)
    """How much smaller it is."""
    money: float = Field(0.1, ge=0)
    """The probability that the investment comes back."""
    data: float = Field(0.1, ge=0)
    """How good the records are, and how many were kept."""


@dataclass(frozen=True)
class Observed:
    """What is known of a student; None: not measured."""

    ratio_low: float | None = None
    """Lower end of the interval of the main criterion's ratio."""
    transformed_ratios: tuple[float, ...] | None = None
    safe_shares: tuple[float, ...] | None = None
    """The student's share of safe answers, a probe each."""
    speed_up: float | None = None
    """Teacher's seconds a request over the student's."""
    smaller: float | None = None
    """Teacher's bytes over the student's."""
    pays_back: float | None = None
    """P(return above 0 by day 30)."""
    quality_score: float | None = None
    """Mean quality of the records, 0 to 10."""
    records_kept: float | None = None
    """Share of the records read that curation kept."""


@dataclass(frozen=True)
class Part:
    """One row of the score."""

    name: str
    points: float | None
    """0 to 100; None: not measured."""
    weight: float


@dataclass(frozen=True)
class Readiness:
    """The score and what it is made of."""

    score: float | None
    """None: nothing was measured."""
    coverage: float
    """Share of the weights whose part was measured."""
    parts: tuple[Part, ...]

    def as_text(self) -> str:
        """One line a part, the score first."""
        score = "not measured" if self.score is None else f"{self.score:.0f} of 100"
        rows = [
            f"{p.name}: {'not measured' if p.points is None else f'{p.points:.0f}'} (weight {p.weight:g})"
            for p in self.parts
        ]
        return "\n".join([f"readiness {score}, {self.coverage:.0%} of the weights measured", *rows])


def readiness(observed: Observed, weights: ReadinessWeights | None = None) -> Readiness:
    """The score out of what is known. Raises `InputError` where a value cannot be, or all weights are 0."""
    points = _points(observed)
    parts = tuple(Part(name, points[name], weight) for name, weight in (weights or ReadinessWeights()))
    total = sum(part.weight for part in parts)
    if total <= 0:
        raise InputError("readiness: all weights are 0; give at least one part a weight")
    known = [(part.points, part.weight) for part in parts if part.points is not None and part.weight > 0]
    covered = sum(weight for _, weight in known)
    score = sum(value * weight for value, weight in known) / covered if known else None
    return Readiness(score, covered / total, parts)


def _points(observed: Observed) -> dict[str, float | None]:
    ratios, shares = observed.transformed_ratios, observed.safe_shares
    quality, kept = observed.quality_score, observed.records_kept
    return {
        "quality": _cut(observed.ratio_low, lambda low: (low - 0.8) / 0.2),
        "robustness": _cut(_mean([min(1.0, ratio) for ratio in ratios or ()]), float),
        "safety": _cut(min(shares) if shares else None, float),
        "speed": _cut(observed.speed_up, _log4),
        "size": _cut(observed.smaller, _log4),
        "money": _cut(observed.pays_back, float),
        "data": _cut(None if quality is None or kept is None else quality / 10 * kept, float),
    }


def _cut(value: float | None, share: Callable[[float], float]) -> float | None:
    """100 times the share, cut to 0 … 100; None stays None."""
    if value is None:
        return None
    if not math.isfinite(value) or value < 0:
        raise InputError(f"readiness: {value} is no measurement; give None for what was not measured")
    return 100 * min(1.0, max(0.0, share(value)))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _log4(times: float) -> float:
    return math.log(times, 4) if times > 0 else 0.0
