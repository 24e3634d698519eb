"""Is a difference real: the paired bootstrap over units (Efron & Tibshirani 1993; Koehn 2004 for paired systems).

Two systems answered the same units, so their differences are resampled, not their scores. A statistic over several
specialities is the mean of the specialities' means; each is resampled within itself (a stratified bootstrap).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.metric import Values

CHUNK = 4_000_000
"""Resampled indices that are held at a time (32 MB)."""


@dataclass(frozen=True)
class Difference:
    """A paired difference and how sure it is."""

    difference: float
    stderr: float
    """Standard deviation of the bootstrap distribution."""
    low: float
    high: float
    """95 % percentile interval."""
    p: float
    """Two-sided: the share of null-centred resamples at least as far from 0; never below 1/(resamples + 1)."""
    n: int

    def beyond(self, sigmas: float) -> bool:
        """Above zero by more than so many standard errors."""
        return self.difference > sigmas * self.stderr


def paired_bootstrap(ours: Values, other: Values, resamples: int = 10_000, seed: int = 0) -> Difference:
    """Ours less the other's mean over the same units. Raises `ValueError` when they are not the same number."""
    return stratified_bootstrap([(ours, other)], resamples, seed)


def stratified_bootstrap(pairs: Sequence[tuple[Values, Values]], resamples: int = 10_000, seed: int = 0) -> Difference:
    """The mean over strata of the mean paired difference within each stratum."""
    differences = [_differences(ours, other) for ours, other in pairs]
    generator = np.random.default_rng(seed)
    draws_R = np.mean([_resampled_means(d, resamples, generator) for d in differences], axis=0)
    value = float(np.mean([d.mean() for d in differences]))
    extreme = int((np.abs(draws_R - value) >= abs(value) - 1e-12).sum())
    low, high = np.quantile(draws_R, [0.025, 0.975])
    return Difference(
        difference=value,
        stderr=float(draws_R.std(ddof=1)),
        low=float(low),
        high=float(high),
        p=min(1.0, (extreme + 1) / (resamples + 1)),
        n=sum(len(d) for d in differences),
    )


def _differences(ours: Values, other: Values) -> npt.NDArray[np.float64]:
    if len(ours) != len(other) or len(ours) == 0:
        raise ValueError(f"{len(ours)} and {len(other)} units cannot be paired; measure both on the same, at least one")
    return np.asarray(ours, dtype=np.float64) - np.asarray(other, dtype=np.float64)


def _resampled_means(
    values_N: npt.NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """(R,) means of n draws with replacement.

    Few distinct values (differences of right and wrong have three) are drawn as counts: one multinomial draw a
    resample, whatever n is; the distribution is the same.
    """
    n = len(values_N)
    distinct, counts = np.unique(values_N, return_counts=True)
    if len(distinct) <= 8:
        drawn_RK = generator.multinomial(n, counts / n, size=resamples)
        return np.asarray(drawn_RK @ distinct / n, dtype=np.float64)
    rows = max(1, CHUNK // n)
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([values_N[generator.integers(n, size=(size, n))].mean(1) for size in sizes])


def proportion_stderr(p: float, n: int) -> float:
    """Standard error of a proportion, √(p(1 − p)/(n − 1)): the unbiased form, equal to s/√n of its 0/1 units."""
    if n < 2 or not 0 <= p <= 1:
        raise ValueError(f"a proportion's standard error needs 0 ≤ p ≤ 1 and n ≥ 2, not p = {p} and n = {n}")
    return math.sqrt(p * (1 - p) / (n - 1))
