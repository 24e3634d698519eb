"""Credit: what techniques bring, as far as the archive tells, and draws from what is possible (Thompson sampling).

    credit = Credit((*POOL, WEIGHTS), archive)
    value = credit.draw(rng)
    value(("vote of 5", "examples 2"))           # fitness over the parent's, if the draw is true

In each domain, what a candidate has more than the parent is taken to be

    level of its rung + Σ over its parts (common gain + own gain) + noise of its units,

all of them normal: Bayesian linear regression. A technique that was good, alone or in company, is likely to be good
again; one that nobody has tried has the common gain and a wide spread; losses of domains weigh as in the fitness. Rungs
have levels of their own, so scores of different rungs are not mixed.
"""

from collections.abc import Callable, Sequence

import numpy as np

from phases.adas.archive import Archive

SPREAD = 0.1
"""Standard deviation of each gain and level before anything is known, in shares of units that are right."""
VARIANCE = 0.1
"""Of one unit's difference to the parent, which plays the same units: one in ten comes out otherwise."""
BOLDNESS = 0.5
"""Draws spread over so much of what is possible: there are more techniques than candidates to try them with."""
Value = Callable[[Sequence[str]], float]
"""Fitness over the parent's of a design with such parts."""


class Credit:
    """A normal distribution over the gains of parts (P of them) in each of D domains."""

    def __init__(self, parts: Sequence[str], archive: Archive) -> None:
        records = list(archive.latest.values())
        parents = [archive.parent(rung) for rung in range(1 + max(record.rung for record in records))]
        domains = list(parents[0].scores.quality)
        self._column = {part: i for i, part in enumerate(parts)}
        self._rungs = len(parents)
        # Columns: P own gains, the common gain, a level a rung.
        x_NC = np.zeros((len(records), len(parts) + 1 + len(parents)))
        gains_ND = np.zeros((len(records), len(domains)))
        for row, gains, record in zip(x_NC, gains_ND, records, strict=True):
            row[[self._column[part] for part in record.genome.parts]] = 1
            row[len(parts)] = len(record.genome.parts)
            row[len(parts) + 1 + record.rung] = 1
            kept = parents[record.rung].scores.quality
            gains[:] = [record.scores.quality[domain] - kept[domain] for domain in domains]
        precision_N = np.array([record.scores.units for record in records]) / len(domains) / VARIANCE
        precision_CC = (x_NC.T * precision_N) @ x_NC + np.eye(x_NC.shape[1]) / SPREAD**2
        self._mean_CD = np.linalg.solve(precision_CC, (x_NC.T * precision_N) @ gains_ND)
        self._root_CC = np.linalg.cholesky(precision_CC)

    def draw(self, rng: np.random.Generator) -> Value:
        """What every design is worth, in one of the worlds that are possible."""
        noise_CD = np.linalg.solve(self._root_CC.T, rng.normal(size=self._mean_CD.shape))
        drawn_CD = self._mean_CD + BOLDNESS * noise_CD
        count = len(self._column)
        gains_PD = drawn_CD[:count] + drawn_CD[count]

        def value(parts: Sequence[str]) -> float:
            gained_D = gains_PD[[self._column[part] for part in parts]].sum(axis=0)
            return float(gained_D.mean() + np.minimum(gained_D, 0).sum())

        return value
