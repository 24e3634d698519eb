"""When nothing fits: what comes closest, one a constraint, by how far it misses relative to its limit."""

import math
from collections.abc import Iterable

from deployment.planning.candidate import Rejection


def miss(rejection: Rejection) -> float:
    """How many times the limit is overrun (or not reached), from 1; infinite where the figures are words."""
    value, limit = rejection.value, rejection.limit
    if isinstance(value, str) or isinstance(limit, str) or min(value, limit) <= 0:
        return math.inf
    return max(value / limit, limit / value)


def nearest(rejections: Iterable[Rejection]) -> tuple[Rejection, ...]:
    """The smallest miss of every constraint, smallest first; words only where a constraint has no figures."""
    best: dict[str, Rejection] = {}
    for rejection in rejections:
        other = best.get(rejection.constraint)
        if other is None or miss(rejection) < miss(other):
            best[rejection.constraint] = rejection
    return tuple(sorted(best.values(), key=miss))
