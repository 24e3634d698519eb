"""Two models' times in turn: what else the machine does meets both."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from evaluation import paired_latency
from evaluation.latency import Latency
from evaluation.paired_latency import in_turn, measure_beside
from phases.checkpoint import Checkpoint

ALONE = Latency(9.0, 9.0, 1000, 64, 1, 2, "native", "abc")


def test_each_is_first_in_every_other_pair() -> None:
    called: list[str] = []
    clock = count()

    def time_of(name: str) -> Any:
        return lambda: (called.append(name), float(next(clock)))[1]

    pairs = in_turn([time_of("a"), time_of("b")], least=4, most=4, seconds=0)
    assert called == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert pairs == [(0.0, 1.0), (3.0, 2.0), (4.0, 5.0), (7.0, 6.0)]


def test_more_than_the_least_only_while_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [lambda: 1.0, lambda: 2.0]
    assert len(in_turn(times, least=5, most=100, seconds=0)) == 5
    assert len(in_turn(times, least=5, most=7, seconds=60)) == 7


def test_the_second_is_the_first_times_the_median_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down tenfold in the middle: the ratio of each pair is .8 all the same."""
    decode = [[speed, 0.8 * speed] for speed in (1.0, 1.0, 10.0, 10.0, 10.0)]
    answer = f'{{"decode": {decode}, "prompt": [[2.0, 1.0], [2.0, 1.0], [4.0, 2.0]]}}'
    monkeypatch.setattr(paired_latency, "run_fresh", lambda *arguments: answer)
    monkeypatch.setattr(paired_latency, "measure_latency", lambda path, repeats: replace(ALONE, written=path.name))
    first, second = measure_beside(Path("a"), Path("b"))
    assert second.ms_per_token_p50 / first.ms_per_token_p50 == pytest.approx(0.8) and first.ms_per_token_p50 == 10.0
    assert (first.prompt_ms_per_token_p50, second.prompt_ms_per_token_p50) == (2.0, 1.0)
    assert (first.repeats, second.written, second.peak_rss_bytes) == (5, "b", 1000)


@pytest.mark.slow
def test_a_model_beside_itself_takes_as_long(family: Checkpoint) -> None:
    """About 30 s: three fresh processes."""
    first, second = measure_beside(family.path, family.path)
    assert first.written == second.written
    assert second.ms_per_token_p50 / first.ms_per_token_p50 == pytest.approx(1, abs=0.2)
