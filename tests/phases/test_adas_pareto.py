"""Fronts, loneliness and hypervolume, against their definitions."""

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.adas.pareto import crowding, hypervolume, ranks

POINT = st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float))
"""Small whole numbers, so that ties in one objective and equal points are common."""


def beats(a, b):
    return a[0] >= b[0] and a[1] <= b[1] and a != b


def peeled(points):
    """Ranks by the definition: take away whoever nobody beats, again and again."""
    left, found, rank = set(range(len(points))), [0] * len(points), 0
    while left:
        best = {i for i in left if not any(beats(points[j], points[i]) for j in left)}
        for i in best:
            found[i] = rank
        left, rank = left - best, rank + 1
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(POINT, max_size=30))
def test_ranks_are_those_of_brute_force(points):
    assert ranks(points) == peeled(points)


def test_ranks_of_many_points_are_those_of_brute_force():
    points = [tuple(row) for row in np.random.default_rng(0).normal(size=(300, 2))]
    assert ranks(points) == peeled(points)
    assert max(ranks(points)) > 10


def test_loneliness_of_a_known_front():
    """Four points on one front: the ends are infinitely lonely, the others by their neighbours' distance."""
    points = [(0.0, 0.0), (1.0, 1.0), (3.0, 2.0), (4.0, 10.0)]
    assert crowding(points, [0] * 4) == pytest.approx([inf, 3 / 4 + 2 / 10, 3 / 4 + 9 / 10, inf])


def test_loneliness_is_that_of_the_own_front_and_equal_points_have_none():
    points = [(1.0, 1.0), (0.5, 2.0), (1.0, 1.0), (0.0, 0.0)]
    fronts = ranks(points)
    assert fronts == [0, 1, 0, 0]
    assert crowding(points, fronts) == [inf, inf, 0.0, inf]
    assert crowding([], []) == []


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(0.5, 1.0)], 0.5 * 3),
        ([(0.5, 1.0), (0.9, 2.0)], 0.5 * 3 + 0.4 * 2),
        ([(0.9, 2.0), (0.5, 1.0), (0.4, 1.5), (0.9, 2.0)], 0.5 * 3 + 0.4 * 2),
        ([(0.5, 1.0), (0.9, 4.0), (0.0, 0.0), (-1.0, 0.0)], 0.5 * 3),
    ],
    ids=["none", "one", "two", "beaten and twice", "beyond the reference"],
)
def test_hypervolume_of_known_sets(points, area):
    assert hypervolume(points, (0.0, 4.0)) == pytest.approx(area)


@given(st.lists(POINT, max_size=12))
def test_hypervolume_counts_the_unit_squares_that_are_beaten(points):
    """With whole numbers the area is the number of squares of a grid that some point beats."""
    squares = sum(any(q > i and w <= j for q, w in points) for i in range(7) for j in range(7))
    assert hypervolume(points, (0.0, 7.0)) == squares
