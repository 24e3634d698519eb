"""What a model has kept of its parent, and how sure that is: of tasks, of an agent's domains, and of text.

    kept = Kept({"reasoning": (ours_N, parents_N)}, {}, (parents_nats_N, our_nats_N))
    kept.mean, kept.stderr

    share = min(1, Σ ours / Σ the parent's) over the same units        (of text: the parent's nats over ours)
    retention = mean over tasks, domains and text of the mean share in each

A share counts 1 at most before any mean is taken: a gain in one does not pay for a loss in another. What the parent
cannot do at all is left out. The phase accepts a ratio by this on the validation split, its judge on the test split.

Standard errors are a paired bootstrap's (Efron & Tibshirani 1993): units are drawn anew with both values of each, every
share within itself, and capped again, of which the ratio estimator's error knows nothing. What is the same pair twice
(questions that are a task and a domain) is drawn once; a judge plays the domain's anew, and they count as others.

Shapes: N units, K different units, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Pair = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""(N,) numerators and (N,) denominators of the same units."""
RESAMPLES = 2_000
"""The standard error is known to 1.6 %."""


@dataclass(frozen=True)
class Kept:
    """Ours beside the parent's."""

    tasks: Mapping[str, Pair]
    domains: Mapping[str, Pair]
    text: Pair
    """Nats of the parent, and ours."""

    @cached_property
    def pairs(self) -> dict[str, dict[str, Pair]]:
        """By group and name, less those in which the parent has nothing to lose; what is no number keeps nothing."""
        every = {"tasks": self.tasks, "domains": self.domains, "text": {"text": self.text}}
        found = {group: {n: p for n, p in pairs.items() if not p[1].sum() <= 0} for group, pairs in every.items()}
        return {group: pairs for group, pairs in found.items() if pairs}

    @property
    def groups(self) -> dict[str, tuple[float, float]]:
        """(mean share, its standard error) of every group that there is."""
        return {group: (self._mean(group), float(draws.std(ddof=1))) for group, draws in self._draws.items()}

    @property
    def mean(self) -> float:
        """The retention: 0 … 1."""
        return float(np.mean([self._mean(group) for group in self.pairs]))

    @property
    def stderr(self) -> float:
        """Of the retention."""
        return float(np.mean(list(self._draws.values()), axis=0).std(ddof=1))

    def _mean(self, group: str) -> float:
        shares = [np.minimum(1.0, ours.sum() / theirs.sum()) for ours, theirs in self._in(group)]
        return float(np.mean(np.nan_to_num(shares)))

    def _in(self, group: str) -> list[Pair]:
        return list(self.pairs[group].values())

    @cached_property
    def _draws(self) -> dict[str, npt.NDArray[np.float64]]:
        """(R,) means of every group over resampled units."""
        draw = np.random.default_rng(0)
        once = {_units(pair): pair for group in self.pairs for pair in self._in(group)}
        shares = {units: _resampled(pair, draw) for units, pair in once.items()}
        return {group: np.mean([shares[_units(pair)] for pair in self._in(group)], axis=0) for group in self.pairs}


def _units(pair: Pair) -> tuple[int, int]:
    return id(pair[0]), id(pair[1])


def _resampled(pair: Pair, draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """(R,) shares. Equal units are drawn as one count each: right and wrong answers make four kinds of units."""
    kinds_K2, counts_K = np.unique(np.stack(pair, 1), axis=0, return_counts=True)
    n = len(pair[0])
    ours_R, theirs_R = (draw.multinomial(n, counts_K / n, size=RESAMPLES) @ kinds_K2).T
    share_R: npt.NDArray[np.float64] = np.divide(ours_R, theirs_R, out=np.ones(RESAMPLES), where=~(theirs_R <= 0))
    share_R[np.isnan(share_R)] = 0.0
    return share_R.clip(max=1.0)
