"""Rates, waits and the breaker, with a clock of numbers."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.teachers.pacing import Breaker, TokenBucket, backoff_seconds, retry_after_seconds

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 400)), min_size=1, max_size=40), st.floats(1, 5000))
def test_no_window_has_more_than_a_burst_and_the_rate(steps: list[tuple[float, float]], per_minute: float) -> None:
    bucket, now, begun = TokenBucket(per_minute), 0.0, []
    for pause, amount in steps:
        now += pause
        begun.append((now + bucket.reserve(amount, now), amount))
    assert begun == sorted(begun, key=lambda one: one[0])
    for first in range(len(begun)):
        for last in range(first, len(begun)):
            # what begins after the first until the last: the first's own amount may be more than a burst
            amount = sum(a for _, a in begun[first : last + 1])
            span = begun[last][0] - begun[first][0]
            most = bucket.capacity + begun[first][1] + span * bucket.per_second
            assert amount <= most * (1 + 1e-9) + 1e-6


def test_a_bucket_at_rest_lets_a_burst_through_and_then_keeps_time() -> None:
    bucket = TokenBucket(60)  # one a second, bursts of 5
    assert [bucket.reserve(1, 100.0) for _ in range(7)] == [0, 0, 0, 0, 0, 1, 2]


def test_what_is_given_back_may_be_used_at_once() -> None:
    bucket = TokenBucket(60)
    assert bucket.reserve(10, 0.0) == 5.0
    bucket.give_back(8)
    assert bucket.reserve(3, 0.0) == 0.0
    bucket.give_back(1000)  # never more than a burst
    assert bucket.reserve(6, 0.0) == 1.0


def test_the_breaker_opens_probes_and_closes() -> None:
    breaker = Breaker(failures=2, pause_seconds=10, probes=2)
    for _ in range(2):
        breaker.failed(0.0, breaker.admit(0.0))
    assert breaker.admit(9.9) == "wait" and breaker.admit(10.0) == "probe" and breaker.admit(10.0) == "wait"
    breaker.failed(11.0, "probe")
    assert breaker.admit(20.0) == "wait" and breaker.admit(21.0) == "probe"
    breaker.worked()
    assert breaker.admit(21.0) == "go"


def test_a_breaker_counts_failures_in_a_row_only() -> None:
    breaker = Breaker(failures=2, pause_seconds=10, probes=2)
    for _ in range(5):
        breaker.failed(0.0, "go")
        breaker.worked()
    assert breaker.admit(0.0) == "go"


def test_probes_in_vain_end_it() -> None:
    breaker = Breaker(failures=1, pause_seconds=1, probes=2)
    breaker.failed(0.0, "go")
    for now in (1.0, 2.0):
        assert breaker.admit(now) == "probe"
        breaker.failed(now, "probe")
    assert breaker.admit(1e9) == "down"


def test_late_failures_of_others_are_no_probes() -> None:
    breaker = Breaker(failures=1, pause_seconds=5, probes=1)
    for now in (0.0, 1.0, 2.0):  # were under way when it opened
        breaker.failed(now, "go")
    assert breaker.admit(5.0) == "probe"
    breaker.left("probe")
    assert breaker.admit(5.0) == "probe"


@given(st.integers(0, 200), st.integers(0, 2**32))
def test_waits_are_drawn_between_nothing_and_what_doubles(attempt: int, seed: int) -> None:
    wait = backoff_seconds(attempt, 0.5, 30.0, random.Random(seed))
    assert 0 <= wait <= min(30.0, 0.5 * 2.0 ** min(attempt, 60))
    assert wait == backoff_seconds(attempt, 0.5, 30.0, random.Random(seed))


def test_waits_use_their_whole_range() -> None:
    waits = [backoff_seconds(3, 1.0, 60.0, random.Random(seed)) for seed in range(2000)]
    assert sum(waits) / 2000 == pytest.approx(4.0, abs=0.2) and min(waits) < 0.1 and max(waits) > 7.9


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        *((text, None) for text in (None, "", "soon", "-3", "1.5", "²", "Sun, 99 Mar 2026 12:00:30 GMT")),
        ("9" * 400, 999999999.0),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds
