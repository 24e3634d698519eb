"""Credit: what techniques bring, as far as the archive tells, and draws from what is possible (Thompson sampling).

    credit = Credit((*POOL, WEIGHTS), archive)
    value = credit.draw(rng)
    value(("vote of 5", "examples 2"))           # fitness over the parent's, if the draw is true

In each domain, what a candidate has more than the parent is taken to be

    level of its rung + Σ over its parts (common gain + own gain) + noise of its units,

all of them normal: Bayesian linear regression. A technique that was good, alone or in company, is likely to be good
again; one that nobody has tried has the common gain and a wide spread; losses of domains weigh as in the fitness. Rungs
have levels of their own, so scores of different rungs are not mixed. The logarithm of the work is such a sum as well:
what is likely to be beyond the budget is worth nothing. Of who was stopped there only that is known.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from phases.adas.archive import VARIANCE, Archive

SPREAD = 0.1
"""Standard deviation of each gain and level before anything is known, in shares of units that are right."""
BOLDNESS = 0.5
"""Draws spread over so much of what is possible: there are more techniques than candidates to try them with."""
WORK_SPREAD, WORK_VARIANCE = 0.5, 0.01
"""The same of the work's logarithm: a technique may double the work, and rarely does."""
_LEAST_WORK = 0.01
"""Of a design that hardly reads anything."""
Value = Callable[[Sequence[str]], float]
"""Fitness over the parent's of a design with such parts."""


class Credit:
    """A normal distribution over the gains of parts (P of them) in each of D domains."""

    def __init__(self, parts: Sequence[str], archive: Archive, budget: float) -> None:
        """`budget`: work that a design may need, as a multiple of the parent's."""
        records = list(archive.latest.values())
        parents = [archive.parent(rung) for rung in range(1 + max(record.rung for record in records))]
        domains = list(parents[0].scores.quality)
        self._column, self._most = {part: i for i, part in enumerate(parts)}, math.log(budget)
        # Columns: P own gains, the common gain, a level a rung.
        x_NC = np.zeros((len(records), len(parts) + 1 + len(parents)))
        gains_ND, work_N = np.zeros((len(records), len(domains))), np.zeros(len(records))
        for i, record in enumerate(records):
            x_NC[i, [self._column[part] for part in record.genome.parts]] = 1
            x_NC[i, len(parts)] = len(record.genome.parts)
            x_NC[i, len(parts) + 1 + record.rung] = 1
            kept = parents[record.rung].scores.quality
            gains_ND[i] = [record.scores.quality[domain] - kept[domain] for domain in domains]
            work_N[i] = math.log(max(record.scores.work, _LEAST_WORK))
        known_N = np.array([not record.scores.stopped for record in records])
        units_N = np.array([record.scores.units for record in records]) / len(domains)
        self._gains = _Posterior(x_NC[known_N], gains_ND[known_N], units_N[known_N] / VARIANCE, SPREAD)
        self._work = _Posterior(x_NC, work_N[:, None], np.full(len(records), 1 / WORK_VARIANCE), WORK_SPREAD)

    def draw(self, rng: np.random.Generator) -> Value:
        """What every design is worth in one of the worlds that are possible; −∞ for what is beyond the budget there."""
        count = len(self._column)
        gained_CD, worked_C = self._gains.draw(rng), self._work.draw(rng)[:, 0]
        gains_PD, work_P = gained_CD[:count] + gained_CD[count], worked_C[:count] + worked_C[count]

        def value(parts: Sequence[str]) -> float:
            columns = [self._column[part] for part in parts]
            gained_D = gains_PD[columns].sum(axis=0)
            if work_P[columns].sum() > self._most:
                return -math.inf
            return float(gained_D.mean() + np.minimum(gained_D, 0).sum())

        return value


class _Posterior:
    """Of C coefficients, a priori normal around 0, for each of D targets."""

    def __init__(
        self,
        x_NC: npt.NDArray[np.float64],
        y_ND: npt.NDArray[np.float64],
        precision_N: npt.NDArray[np.float64],
        spread: float,
    ) -> None:
        weighted_CN = x_NC.T * precision_N
        precision_CC = weighted_CN @ x_NC + np.eye(x_NC.shape[1]) / spread**2
        self.mean_CD = np.linalg.solve(precision_CC, weighted_CN @ y_ND)
        self._root_CC = np.linalg.cholesky(precision_CC)

    def draw(self, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """(C, D) coefficients of a world that is possible."""
        noise_CD = np.linalg.solve(self._root_CC.T, rng.normal(size=self.mean_CD.shape))
        drawn_CD: npt.NDArray[np.float64] = self.mean_CD + BOLDNESS * noise_CD
        return drawn_CD
