"""The simulated engine on its own clock against figures made by hand."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.simulator.batching import Batch, Sequence
from deployment.simulator.playing import in_flight, play, played
from deployment.simulator.timing import Timing
from phases.errors import InputError

TIMING = Timing(
    steps=((1.0, 0.010), (16.0, 0.025)),  # 9 ms and 1 ms a sequence
    prefills=((100.0, 0.010), (1000.0, 0.100)),
    overheads=((1.0, 0.0),),
    slots=8,
    kv_tokens=100_000,
    step_tokens=4096,
)
NONE = TIMING.overheads


def test_one_request_alone() -> None:
    (one,) = play(TIMING, [(5.0, 1000, 11)])
    assert one.ttft == pytest.approx(0.100)
    assert one.tpot == pytest.approx(0.010)
    assert one.finished == pytest.approx(5.0 + 0.100 + 10 * 0.010)


def test_overhead_delays_its_own_request_alone() -> None:
    late = replace(TIMING, overheads=((1000.0, 0.05),))
    first, second = play(late, [(0.0, 1000, 11), (0.105, 1000, 2)])
    assert first.ttft == pytest.approx(0.150) and first.finished == pytest.approx(0.150 + 9 * 0.010 + 0.111)
    assert second.first == pytest.approx(0.160 + 0.110)


def test_a_prompt_delays_whoever_decodes() -> None:
    first, second = play(TIMING, [(0.0, 1000, 11), (0.105, 1000, 2)])
    # The second arrives during the first's decoding step that ends at 0.110: prefilled with the next one.
    assert second.first == pytest.approx(0.110 + 0.010 + 0.100)
    assert first.finished == pytest.approx(
        0.100 + 9 * 0.010 + 0.100 + 0.011
    )  # one step holds the prompt, one is of two


def test_slots_and_kv_pool_make_wait() -> None:
    few = Timing(TIMING.steps, TIMING.prefills, NONE, slots=1, kv_tokens=10_000, step_tokens=4096)
    first, second = play(few, [(0.0, 1000, 11), (0.0, 1000, 11)])
    assert second.started == first.finished
    narrow = Timing(TIMING.steps, TIMING.prefills, NONE, slots=8, kv_tokens=1500, step_tokens=4096)
    first, second = play(narrow, [(0.0, 1000, 11), (0.0, 1000, 11)])
    assert second.started == first.finished


def test_queueing_begins_where_the_engine_has_a_request() -> None:
    """HTTP and tokenisation count to the TTFT and not to the queue."""
    slow = Timing(TIMING.steps, TIMING.prefills, ((1.0, 0.5), (2.0, 0.5)), slots=1, kv_tokens=10_000, step_tokens=4096)
    first, second = play(slow, [(0.0, 1000, 11), (0.0, 1000, 11)])
    assert first.queue_time == 0 and first.ttft == pytest.approx(0.5 + 0.1)
    assert first.finished is not None and second.queue_time == pytest.approx(first.finished - 0.5)


def test_long_prompts_are_prefilled_in_pieces() -> None:
    chunked = Timing(TIMING.steps, TIMING.prefills, NONE, slots=8, kv_tokens=100_000, step_tokens=250)
    batch = Batch(chunked)
    batch.add(one := Sequence(1000, 2))
    seconds = [batch.step()[0] for _ in range(4)]
    assert seconds == pytest.approx([0.025] * 4) and one.first == pytest.approx(0.100)


def test_speculation_gives_more_tokens_a_step() -> None:
    quick = Timing(TIMING.steps, TIMING.prefills, NONE, 8, 100_000, 4096, tokens_per_step=2.5)
    (one,) = play(quick, [(0.0, 1000, 101)])
    assert one.tpot == pytest.approx(0.010 / 2.5)


@pytest.mark.parametrize("users", [2, 4, 8])
def test_closed_loop_against_the_closed_form(users: int) -> None:
    """TPOT = step(B) + (B − 1)/(tokens − 1) · prefill: while one decodes, each other's prompt delays it once."""
    done = in_flight(TIMING, users, 1000, 1000, itertools.cycle((81, 91, 101, 111, 121)))[-800:]
    tpot = sum(one.tpot or 0.0 for one in done) / len(done)
    assert tpot == pytest.approx(TIMING.step(users) + (users - 1) / 100 * TIMING.prefill(1000), rel=0.01)


sizes = st.integers(1, 3000)


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.floats(0, 5), sizes, st.integers(1, 50)), min_size=1, max_size=12),
    slots=st.integers(1, 6),
    step_tokens=st.integers(16, 4096),
    kv_tokens=st.integers(10, 20_000),
)
def test_every_request_gets_its_tokens_in_time(
    arrivals: list[tuple[float, int, int]], slots: int, step_tokens: int, kv_tokens: int
) -> None:
    timing = Timing(TIMING.steps, TIMING.prefills, NONE, slots, kv_tokens, step_tokens)
    done = play(timing, arrivals)
    assert len(done) == len(arrivals)
    for one in done:
        assert one.written == one.output_tokens and one.first is not None and one.finished is not None
        assert one.ttft >= timing.prefill(one.prompt_tokens) - 1e-9
        assert one.tpot is None or one.tpot >= timing.step(1) - 1e-9
        assert one.arrived <= (one.started or 0.0) <= one.first <= one.finished


def test_played_load_and_nonsense() -> None:
    load = {"prompt_tokens": 1000, "output_tokens": 101, "concurrency": 4, "rate": None}
    seen = played(TIMING, load)
    assert seen["tpot"]["p50"] <= seen["tpot"]["p95"] <= seen["tpot"]["p99"]
    slow = played(TIMING, {**load, "concurrency": None, "rate": 0.01})
    assert slow["tpot"]["mean"] == pytest.approx(0.010, rel=0.02) and slow["ttft"]["p50"] == pytest.approx(0.1)
    with pytest.raises(InputError, match="neither a rate nor requests"):
        played(TIMING, {**load, "concurrency": None})
    with pytest.raises(InputError, match="cannot be read"):
        Timing.read({"steps": []})
