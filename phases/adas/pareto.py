"""Quality against work: which designs no other beats in both (NSGA-II's sorting, Deb et al. 2002).

    ranks([(0.9, 2.0), (0.8, 1.0), (0.7, 1.5)])        # [0, 0, 1]: the third is worse and dearer than the second
    hypervolume([(0.9, 2.0), (0.8, 1.0)], (0.0, 4.0))  # 2.6: the area that they beat

A point is (quality, work): more of the first and less of the second is better. A point beats another that is no better
in either and worse in one. With two objectives one pass over sorted points finds all fronts, in O(n log n).
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from math import inf

Point = tuple[float, float]
"""(quality, work)."""


def ranks(points: Sequence[Point]) -> list[int]:
    """For each point the number of its front: 0 for those that none beats, 1 for those that only these beat, …"""
    ranked: dict[Point, int] = {}
    least_work: list[float] = []  # of each front so far; it rises from front to front
    for point in sorted(set(points), key=lambda point: (-point[0], point[1])):
        # Whoever came before is at least as good, so it beats this point unless it needs more work.
        rank = bisect_right(least_work, point[1])
        least_work[rank : rank + 1] = [point[1]]
        ranked[point] = rank
    return [ranked[point] for point in points]


def crowding(points: Sequence[Point], fronts: Sequence[int]) -> list[float]:
    """How lonely each point is within its front: half the outline of the box between its neighbours there.

    Sides are shares of the front's extent. The ends of a front are infinitely lonely; of equal points all but the first
    have 0. `fronts` holds the number of each point's front, within which no point may beat another.
    """
    lonely = [0.0] * len(points)
    members: dict[int, dict[Point, int]] = defaultdict(dict)
    for i, (point, rank) in enumerate(zip(points, fronts, strict=True)):
        members[rank].setdefault(point, i)
    for first in members.values():
        line = sorted(first)
        quality, work = (line[-1][axis] - line[0][axis] for axis in (0, 1))
        for before, point, after in zip(line, line[1:], line[2:], strict=False):
            lonely[first[point]] = (after[0] - before[0]) / quality + (after[1] - before[1]) / work
        lonely[first[line[0]]] = lonely[first[line[-1]]] = inf
    return lonely


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Area between the points and a reference that is worse than they are; a point beyond it counts nothing."""
    floor, most_work = reference
    inside = sorted((work, quality) for quality, work in points if quality > floor and work < most_work)
    ends = [work for work, _ in inside[1:]] + [most_work]
    area, best = 0.0, floor
    for (work, quality), end in zip(inside, ends, strict=False):
        best = max(best, quality)
        area += (end - work) * (best - floor)
    return area
