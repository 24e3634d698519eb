"""What one comparison of a student with its teacher says: pass, fail, or not enough data and how much is needed.

`measure` gives the ratio, its 90 % interval and two p-values, of being above and of being below the ratio asked for.
Right and wrong answers go through the exact score test (`paired_score`), graded ones through the bootstrap
(`paired_graded`). The gate (`gate.py`) turns p-values into verdicts, since a night has several of them.

    kept = measure(student, teacher, ratio=0.95)
    verdict(kept, alpha=0.05)
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from distillation.validation.paired_graded import RatioBootstrap
from distillation.validation.paired_score import one_sided, score_interval, table
from distillation.validation.sample_size import required_items
from evaluation.metric import Values
from phases.errors import InputError

Kind = Literal["right", "graded"]
"""Whether a value is a truth value or a score from 0 to 1."""
Verdict = Literal["pass", "fail", "not enough data"]

INTERVAL = 0.90
"""Level of the two-sided interval; its ends are one-sided 95 % bounds."""
POWER = 0.8
RESAMPLES = 10_000


@dataclass(frozen=True)
class Kept:
    """How much of the teacher a student keeps on n items."""

    n: int
    student: float
    """Mean over the items, as the teacher's."""
    teacher: float
    ratio: float | None
    """Student's over teacher's; None where the teacher has nothing."""
    low: float | None
    high: float | None
    asked: float
    """The ratio that the p-values are about."""
    p_above: float
    """Of the student being at `asked` or below."""
    p_below: float
    """Of the student being at `asked` or above."""
    spread: float
    """Standard deviation over items of student − asked · teacher."""
    discordance: float | None
    """Share of items that exactly one has right, smoothed by one item; None for graded answers."""

    @property
    def testable(self) -> bool:
        """Whether there is a ratio to speak of."""
        return self.ratio is not None


def measure(
    student: Values,
    teacher: Values,
    ratio: float = 0.95,
    kind: Kind = "right",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Kept:
    """Compares the two on the same items. Raises `InputError` where they are not paired, or not from 0 to 1."""
    s, t = _checked(student, teacher, ratio, kind)
    if t.sum() == 0:
        mean = float(s.mean()) if len(s) else 0.0
        return Kept(len(s), mean, 0.0, None, None, None, ratio, 1.0, 1.0, 0.0, None)
    spread = float(np.std(s - ratio * t))
    if kind == "graded":
        found = RatioBootstrap(s, t, resamples, seed)
        low, high = found.interval(INTERVAL)
        above, below = found.p_value(ratio, "above"), found.p_value(ratio, "below")
        return Kept(len(s), float(s.mean()), float(t.mean()), found.ratio, low, high, ratio, above, below, spread, None)
    counts = table(s, t)
    low, high = score_interval(counts, INTERVAL)
    differing = (counts.student_only + counts.teacher_only + 1) / (counts.n + 2)
    return Kept(
        n=counts.n,
        student=float(s.mean()),
        teacher=float(t.mean()),
        ratio=float(s.sum() / t.sum()),
        low=low,
        high=high,
        asked=ratio,
        p_above=one_sided(counts, ratio, "above"),
        p_below=one_sided(counts, ratio, "below"),
        spread=spread,
        discordance=differing,
    )


def verdict(kept: Kept, alpha: float) -> Verdict:
    """One comparison alone, at a level of its own."""
    if kept.p_above <= alpha:
        return "pass"
    return "fail" if kept.p_below <= alpha else "not enough data"


def items_needed(kept: Kept, alpha: float, ratio_true: float) -> int | None:
    """Items for 80 % power if the student truly is at `ratio_true`; None where no number of items would do."""
    if not kept.testable or ratio_true == kept.asked:
        return None
    if kept.discordance is None:
        z = float(norm.isf(alpha) + norm.ppf(POWER))
        floor = math.log(alpha) / math.log(kept.asked) if kept.asked < 1 else 1.0
        return math.ceil(max(floor, (z * kept.spread / ((ratio_true - kept.asked) * kept.teacher)) ** 2))
    least = kept.teacher * abs(1 - ratio_true)
    most = min(kept.teacher * (1 + ratio_true), 2 - kept.teacher * (1 + ratio_true))
    if most < least:
        return None
    differing = min(max(kept.discordance, least), most)
    return required_items(kept.teacher, ratio_true, differing, POWER, alpha, kept.asked)


def reason(kept: Kept, decided: Verdict, alpha: float, of: str = "the teacher") -> str:
    """The verdict's why, in one line. `of`: with whom the student was compared."""
    if kept.n == 0:
        return "no items"
    if kept.ratio is None or kept.low is None or kept.high is None:
        return f"{of} has nothing right on {kept.n} items: nothing to keep; look at it and at the grading"
    seen = f"{kept.ratio:.3f} of {of} ({kept.low:.3f} to {kept.high:.3f}) on {kept.n} items"
    if decided == "pass":
        return f"{seen}: shown to be above {kept.asked:g} (p = {kept.p_above:.2g})"
    if decided == "fail":
        return f"{seen}: shown to be below {kept.asked:g} (p = {kept.p_below:.2g})"
    return f"{seen}: neither shown; {_wanted(kept, alpha, of)}"


def _wanted(kept: Kept, alpha: float, of: str) -> str:
    equal = items_needed(kept, alpha, 1.0)
    told = f"about {equal:,} items are needed if it equals {of}" if equal else "no number of items would do"
    observed = items_needed(kept, alpha, kept.ratio or 0.0)
    if observed is None or kept.ratio is None or observed == equal:
        return told
    side = "above" if kept.ratio > kept.asked else "below"
    return f"{told}, {observed:,} to show it {side} if the ratio is the observed one"


def _checked(
    student: Values, teacher: Values, ratio: float, kind: Kind
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    s, t = np.asarray(student, dtype=np.float64), np.asarray(teacher, dtype=np.float64)
    if s.shape != t.shape or s.ndim != 1:
        raise InputError(f"{s.size} and {t.size} values cannot be paired; grade student and teacher on the same items")
    if not 0 < ratio <= 1:
        raise InputError(f"the share of the teacher to keep is above 0 and at most 1, not {ratio}")
    both = np.concatenate([s, t])
    if not np.isfinite(both).all() or (both < 0).any() or (both > 1).any():
        raise InputError("grades go from 0 to 1; a value is outside or not a number")
    if kind == "right" and not np.isin(both, (0.0, 1.0)).all():
        raise InputError("right and wrong are 1 and 0; give partial grades as kind 'graded'")
    return s, t
