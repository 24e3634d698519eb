"""The Pareto front in cost, latency and quality, and the orders in which candidates can be ranked."""

import math
from collections.abc import Callable, Sequence

from deployment.model import Quality
from deployment.planning.candidate import Candidate
from deployment.planning.request import Rank

LEAST_WRONG = 1.0
"""Percent: a benchmark does not tell better models apart."""


def front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Candidates that no other equals or beats in cost, end-to-end latency and quality at once; cheapest first.

    A candidate without a score is as bad as can be in quality: nothing is known in its favour. Of exact ties the first
    in the given order stays.
    """
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=_costs):
        # Sorted by cost, nothing that comes later dominates what is kept.
        if not any(_covers(other, candidate) for other in kept):
            kept.append(candidate)
    return tuple(kept)


def ranked(candidates: Sequence[Candidate], rank: Rank) -> tuple[Candidate, ...]:
    """Best first; ties go to the cheaper, then the faster, then by name, so that the order is always the same."""
    key = _balance(candidates) if rank == "balance" else KEYS[rank]
    return tuple(sorted(candidates, key=lambda c: (key(c), *_costs(c), c.system)))


def _covers(one: Candidate, other: Candidate) -> bool:
    """Whether `one` is no worse than `other` in cost, latency and quality."""
    return all(a <= b for a, b in zip(_costs(one), _costs(other), strict=True))


def quality_of(score: Quality | None) -> float:
    """The score; without one as bad as can be, as nothing is known in its favour."""
    return score.score if score else -math.inf


def _costs(candidate: Candidate) -> tuple[float, float, float]:
    """Cost, latency and lack of quality: smaller is better in each."""
    return candidate.cost_per_hour, candidate.e2e_p95, -quality_of(candidate.quality)


def _balance(candidates: Sequence[Candidate]) -> Callable[[Candidate], float]:
    """Log cost + log latency + log of the share that the model gets wrong.

    Twice the price is as bad as twice the time, and as good as half the mistakes. What else there is to choose from
    changes nothing in the order of two. What has no score cannot be balanced and comes after all that has one; where
    nobody has one, quality does not count.
    """
    scored = any(c.quality for c in candidates)

    def loss(candidate: Candidate) -> float:
        if scored and not candidate.quality:
            return math.inf
        wrong = max(LEAST_WRONG, 100 - candidate.quality.score) if candidate.quality else 100.0
        return math.log(max(candidate.cost_per_hour, 1e-9) * max(candidate.e2e_p95, 1e-9) * wrong)

    return loss


KEYS: dict[str, Callable[[Candidate], float]] = {
    "cost": lambda c: c.cost_per_hour,
    "latency": lambda c: c.e2e_p95,
    "quality": lambda c: -quality_of(c.quality),
    "score": lambda c: -c.score,
}
