"""Ranking teachers: known orders, intervals against a closed form, and what an unknown price may not do."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.record import Record, asked
from distillation.teachers.ranking import pareto_front, rank
from distillation.teachers.teacher import Answer
from phases.errors import DataError


def records(n: int, group: str = "all") -> list[Record]:
    return [asked(f"{group} {i}", reference="right", group=group) for i in range(n)]


def right(record: Record, text: str) -> float:
    return float(text == record.reference)


def answers(right: list[bool], usd: float | None = 1.0, seconds: float = 0.5) -> dict[int, Answer]:
    return {i: Answer("right" if is_right else "no", 5, 2, 0, seconds, usd) for i, is_right in enumerate(right)}


def share(n: int, of: float, seed: int = 0) -> list[bool]:
    return [bool(x) for x in np.random.default_rng(seed).random(n) < of]


def test_the_best_stands_first_with_its_interval() -> None:
    given = {"low": answers(share(400, 0.3)), "high": answers(share(400, 0.8, 1))}
    ranking = rank(given, records(400), right)
    first, second = ranking.standings
    assert (first.teacher, second.teacher) == ("high", "low") and ranking.recommended == "high"
    spread = 1.96 * np.sqrt(first.score * (1 - first.score) / 400)
    assert first.low == pytest.approx(first.score - spread, abs=0.006)
    assert first.high == pytest.approx(first.score + spread, abs=0.006)
    assert second.behind.high < 0 and first.behind.difference == 0


def test_a_cheap_one_that_is_not_shown_to_be_worse_is_recommended_and_the_reason_says_so() -> None:
    good = share(300, 0.9)
    nearly = [is_right and i not in (1, 5) for i, is_right in enumerate(good)]
    ranking = rank({"dear": answers(good, 0.01), "cheap": answers(nearly, 0.001)}, records(300), right)
    if nearly == good:
        pytest.fail("the two questions have to be right ones")
    assert ranking.recommended == "cheap"
    assert "cheap is not shown to be worse than dear (difference -0.0" in ranking.reason
    assert "costs 10% of it" in ranking.reason and "n = 300" in ranking.reason


def test_a_cheap_one_that_is_worse_is_not_recommended() -> None:
    given = {"dear": answers(share(300, 0.9), 1.0), "cheap": answers(share(300, 0.5), 0.1)}
    ranking = rank(given, records(300), right)
    assert ranking.recommended == "dear" and all(s.on_front for s in ranking.standings)


def test_a_price_that_is_not_known_is_never_the_cheapest() -> None:
    same = share(100, 0.8)
    ranking = rank({"free?": answers(same, None), "priced": answers(same, 0.5)}, records(100), right)
    assert ranking.recommended == "priced" and "cost took no part for free?: not known" in ranking.reason
    assert {s.teacher: s.on_front for s in ranking.standings} == {"priced": True, "free?": None}


def test_one_missing_price_makes_the_mean_unknown() -> None:
    given = answers([True] * 30)
    given[3] = Answer("right", None, None)
    (standing,) = rank({"one": given}, records(30), right).standings
    assert standing.usd_per_question is None


def test_questions_that_one_left_out_count_for_nobody() -> None:
    whole, part = answers([True] * 10), {i: a for i, a in answers([True] * 10).items() if i < 7}
    ranking = rank({"whole": whole, "part": part}, records(10), right)
    assert {s.teacher: (s.n, s.unanswered) for s in ranking.standings} == {"whole": (7, 0), "part": (7, 3)}
    with pytest.raises(DataError, match="no question that every teacher answered"):
        rank({"whole": whole, "none": {}}, records(10), right)


def test_groups_go_to_whoever_is_better_at_them() -> None:
    both = records(50, "sums") + records(50, "words") + records(5, "rare")
    sums, words = answers([True] * 50 + [False] * 55), answers([False] * 50 + [True] * 55)
    ranking = rank({"sums": sums, "words": words}, both, right)
    assert {group: route.teacher for group, route in ranking.routes.items()} == {
        "sums": "sums",
        "words": "words",
        "rare": ranking.recommended,
    }
    assert "too few" in ranking.routes["rare"].reason and ranking.routes["rare"].n == 5


def test_latency_is_that_of_the_answers() -> None:
    given = {i: Answer("right", 1, 1, seconds=float(i)) for i in range(101)}
    (standing,) = rank({"one": given}, records(101), right).standings
    assert (standing.seconds_p50, standing.seconds_p95) == (50.0, 95.0)


def test_equal_inputs_give_equal_rankings() -> None:
    given = {"a": answers(share(60, 0.6)), "b": answers(share(60, 0.7, 1))}
    again = dict(reversed(given.items()))
    assert rank(given, records(60), right) == rank(again, records(60), right)


POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8)


@given(POINTS)
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    score, usd = ({str(i): float(p[k]) for i, p in enumerate(points)} for k in (0, 1))
    front = pareto_front(score, usd)
    assert front
    for (i, mine), (j, other) in itertools.permutations(enumerate(points), 2):
        if other[0] >= mine[0] and other[1] <= mine[1] and other != mine:
            assert str(i) not in front, (i, j)
