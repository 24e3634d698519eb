"""A ratio of paired mean scores: the BCa bootstrap, for answers that are graded from 0 to 1 instead of right or wrong.

Items are resampled as pairs; the bias-corrected and accelerated interval (Efron, JASA 82, 1987) of ΣS/ΣT is turned
around to a p-value: the level at which its end is r. A resampling knows only what was seen, and it never saw the rare
answer that is lost whole. So the p-value is the largest of three:

- the BCa bootstrap's;
- Student's t of S − r·T, which is the steadier one for n below a hundred;
- rⁿ, the chance that a student that loses every answer whole with probability 1 − r shows none of it in n items.

Measured false passes where 5 % is meant: `python -m tests.benchmarks.noninferiority`.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri
from scipy.stats import t as student_t

Floats = npt.NDArray[np.float64]
Side = Literal["above", "below"]

FEWEST = 20
"""Items below which no claim is made: the bootstrap of so few is not to be trusted."""
CHUNK = 2_000_000
"""Resampled indices that are held at a time (16 MB)."""


class RatioBootstrap:
    """Bootstrap distribution of ΣS/ΣT over paired resamples, and what it says."""

    def __init__(self, student_N: Floats, teacher_N: Floats, resamples: int, seed: int) -> None:
        if teacher_N.sum() <= 0:
            raise ValueError("the teacher scores nothing, so there is no ratio to it")
        self.student_N, self.teacher_N = student_N, teacher_N
        self.ratio = float(student_N.sum() / teacher_N.sum())
        self.ratios_R = np.sort(_resampled(student_N, teacher_N, resamples, np.random.default_rng(seed)))
        self.bias = float(ndtri(self._share_below(self.ratio)))
        self.acceleration = _acceleration(student_N, teacher_N)

    def p_value(self, r: float, side: Side) -> float:
        """Evidence against a ratio of at most (`above`) or at least (`below`) r: the largest p of the three."""
        n = len(self.student_N)
        if n < FEWEST:
            return 1.0
        above = self._confidence_below(r)
        tail = above if side == "above" else 1 - above
        unseen = r**n if side == "above" else (1 - r) ** n
        return max(tail, _t_test(self.student_N - r * self.teacher_N, side), unseen)

    def interval(self, level: float) -> tuple[float, float]:
        """Two-sided BCa interval of the ratio."""
        ends = []
        for tail in ((1 - level) / 2, (1 + level) / 2):
            shifted = self.bias + float(ndtri(tail))
            at = ndtr(self.bias + shifted / (1 - self.acceleration * shifted))
            ends.append(float(np.quantile(self.ratios_R, at)))
        return ends[0], ends[1]

    def _confidence_below(self, r: float) -> float:
        """The one-sided level at which the BCa interval's lower end is r."""
        shifted = float(ndtri(self._share_below(r))) - self.bias
        return float(ndtr(shifted / (1 + self.acceleration * shifted) - self.bias))

    def _share_below(self, value: float) -> float:
        """Share of resamples below a value, ties half; never quite 0 or 1, which so many resamples cannot tell."""
        below = np.searchsorted(self.ratios_R, value, "left") + np.searchsorted(self.ratios_R, value, "right")
        return float((below / 2 + 0.5) / (len(self.ratios_R) + 1))


def _resampled(student_N: Floats, teacher_N: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """(R,) ratios of resamples; one in which the teacher scores nothing counts as 0, against the student."""
    n = len(student_N)
    ratios = []
    for start in range(0, resamples, rows := max(1, CHUNK // n)):
        drawn_RN = generator.integers(n, size=(min(rows, resamples - start), n))
        s_R, t_R = student_N[drawn_RN].sum(1), teacher_N[drawn_RN].sum(1)
        ratios.append(np.divide(s_R, t_R, out=np.zeros_like(s_R), where=t_R > 0))
    return np.concatenate(ratios)


def _acceleration(student_N: Floats, teacher_N: Floats) -> float:
    """Skewness of the jackknife's influences over 6; 0 where leaving an item out changes nothing or is not possible."""
    left_N = teacher_N.sum() - teacher_N
    if (left_N <= 0).any():
        return 0.0
    jackknife_N = (student_N.sum() - student_N) / left_N
    away_N = jackknife_N.mean() - jackknife_N
    spread = float((away_N**2).sum())
    return float((away_N**3).sum()) / (6 * spread**1.5) if spread > 1e-24 else 0.0


def _t_test(excess_N: Floats, side: Side) -> float:
    """One-sided p of a mean of S − r·T beyond 0; without any spread the sign decides."""
    n, mean = len(excess_N), float(excess_N.mean())
    error = float(excess_N.std(ddof=1)) / n**0.5
    signed = mean if side == "above" else -mean
    if error < 1e-12:
        return 0.0 if signed > 0 else 1.0
    return float(student_t.sf(signed / error, n - 1))
