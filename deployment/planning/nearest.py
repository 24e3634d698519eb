"""Of thousands of rejections what tells most: how many by which constraint, and those that miss by least."""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from deployment.planning.candidate import Constraint, Rejection

FEW = 3
"""Rejections of one constraint that are named."""


@dataclass(frozen=True, slots=True)
class Kind:
    """All rejections by one constraint."""

    constraint: Constraint
    count: int
    nearest: tuple[Rejection, ...]
    """The smallest misses, smallest first."""


def miss(rejection: Rejection) -> float:
    """How many times the limit is overrun (or not reached), from 1; infinite where the figures are words."""
    value, limit = rejection.value, rejection.limit
    if isinstance(value, str) or isinstance(limit, str) or min(value, limit) <= 0:
        return math.inf
    return max(value / limit, limit / value)


def kinds(rejections: Iterable[Rejection], few: int = FEW) -> tuple[Kind, ...]:
    """By constraint, the one with the most rejections first; of each the `few` nearest. Ties stay in their order."""
    by_constraint: dict[Constraint, list[Rejection]] = defaultdict(list)
    for rejection in rejections:
        by_constraint[rejection.constraint].append(rejection)
    found = [Kind(name, len(all_), tuple(heapq.nsmallest(few, all_, miss))) for name, all_ in by_constraint.items()]
    return tuple(sorted(found, key=lambda kind: -kind.count))


def nearest(rejections: Iterable[Rejection]) -> tuple[Rejection, ...]:
    """The smallest miss of every constraint, smallest first; words only where a constraint has no figures.

    Who is outdone misses nothing that was asked for.
    """
    found = [kind.nearest[0] for kind in kinds(rejections, 1) if kind.constraint != "outdone"]
    return tuple(sorted(found, key=miss))
