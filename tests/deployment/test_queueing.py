"""Latency percentiles of the simulated engine against queueing theory's closed forms."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.physics.queue_simulation import Lengths, Service, Simulation
from deployment.physics.queueing import PERCENTILES, capacity, largest_batch, open_loop, percentile
from phases.errors import InputError

ONE_SECOND = Service(prefill=0.0, base=0.001, slots=1)
"""One server; with 1,001 tokens a request takes a second in steps of a millisecond."""
REPLICA = Service(prefill=0.05, base=0.02, slope=0.0002, slots=256, prompt_share=0.125)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(("variation", "factor"), [(1.0, 1.0), (0.0, 0.5)], ids=["M/M/1", "M/D/1"])
def test_mean_wait_of_one_server(load: float, variation: float, factor: float) -> None:
    """Pollaczek-Khinchine: ρ/(1 − ρ) services for exponential ones, half of it for constant ones."""
    seen = open_loop(ONE_SECOND, load, 1001, variation=variation, requests=12_000, seed=1)
    assert seen.ttft == pytest.approx(factor * load / (1 - load), rel=0.1)
    assert seen.batch == pytest.approx(load, rel=0.03)
    assert seen.utilisation == pytest.approx(load)


def test_percentiles_of_m_m_1() -> None:
    """P(wait > t) = ρ · exp(−(1 − ρ) · t)."""
    seen = open_loop(ONE_SECOND, 0.6, 1001, variation=1.0, requests=12_000, seed=2)
    for p, tolerance in ((50, 0.1), (95, 0.1), (99, 0.2)):
        exact = max(0.0, math.log(0.6 / (1 - p / 100)) / 0.4)
        assert seen.ttft_percentiles[p] == pytest.approx(exact, rel=tolerance)


def test_mean_wait_of_many_slots() -> None:
    """M/M/c: Erlang's C over c · (1 − ρ), with 8 slots."""
    slots, offered, load = 8, 5.6, 0.7
    last = offered**slots / math.factorial(slots) / (1 - load)
    waits = last / (sum(offered**k / math.factorial(k) for k in range(slots)) + last)
    service = replace(ONE_SECOND, slots=slots)
    seen = open_loop(service, offered, 1001, variation=1.0, requests=20_000, seed=3)
    assert seen.ttft == pytest.approx(waits / (slots - offered), rel=0.1)


def test_littles_law() -> None:
    for rate in (0.5, 2.0, 6.0):
        seen = open_loop(REPLICA, rate, 256, requests=2000)
        assert seen.batch == pytest.approx(rate * 255 * seen.tpot, rel=0.05)
        assert seen.throughput == pytest.approx(256 * rate, rel=0.05)


def test_alone_nothing_waits() -> None:
    quiet = open_loop(REPLICA, 1e-4, 256)
    assert quiet.ttft == pytest.approx(0.05)
    assert quiet.tpot == pytest.approx(0.0202)
    assert quiet.ttft_percentiles[99] == pytest.approx(0.05)


def test_prefills_delay_the_others_tokens() -> None:
    """Of each second the prefills take rate · prefill, so that a step takes so much longer."""
    seen = open_loop(REPLICA, 6.0, 256, requests=2000)
    assert seen.tpot == pytest.approx(REPLICA.step(seen.batch) / (1 - 6.0 * 0.05), rel=0.03)


def test_speculation_shortens_decoding() -> None:
    fast = replace(REPLICA, tokens_per_step=2.5)
    assert open_loop(fast, 1e-4, 251).tpot == pytest.approx(0.0202 / 2.5, rel=0.02)
    assert capacity(fast, 251) > capacity(REPLICA, 251)


def test_same_seed_same_figures() -> None:
    assert open_loop(REPLICA, 4, 128, seed=5) == open_loop(REPLICA, 4, 128, seed=5)
    assert open_loop(REPLICA, 4, 128, seed=5) != open_loop(REPLICA, 4, 128, seed=6)


def test_overload_is_said() -> None:
    limit = capacity(REPLICA, 256)
    seen = open_loop(REPLICA, 1.01 * limit, 256)
    assert not seen.stable and seen.utilisation > 1
    assert all(math.isinf(seen.ttft_percentiles[p]) for p in PERCENTILES)
    assert seen.throughput == pytest.approx(256 * limit)
    assert open_loop(REPLICA, 0.9 * limit, 256).stable


@pytest.mark.parametrize("share", [0.125, 2.0])
def test_capacity_is_what_a_full_replica_does(share: float) -> None:
    """A queue that never empties. Short answers to long prompts: prompts, not slots, are the limit."""
    for output in (16, 512):
        service = replace(REPLICA, prompt_share=share)
        simulation = Simulation(service, Lengths(output, 0.2, random.Random(0)), 1000, 2500)
        simulation.start_running(inside := round(largest_batch(service, output)))
        simulation.arrivals.extend([0.0] * 4000)
        simulation.run()
        served = inside + 4000 - len(simulation.waiting) - len(simulation.running)
        assert served / simulation.now == pytest.approx(capacity(service, output), rel=0.05)


@settings(max_examples=60, deadline=None)
@given(
    prefill=st.floats(0.001, 1),
    base=st.floats(0.001, 0.1),
    slots=st.integers(1, 256),
    output=st.integers(1, 500),
    load=st.floats(0.01, 0.9),
    share=st.floats(0.0, 3),
)
def test_order_and_floors(prefill: float, base: float, slots: int, output: int, load: float, share: float) -> None:
    service = Service(prefill, base, base / 100, slots, share)
    rate = load * capacity(service, output)
    seen = open_loop(service, rate, output, requests=50)
    for of in (seen.ttft_percentiles, seen.tpot_percentiles):
        assert 0 <= of[50] <= of[95] <= of[99] < math.inf
    assert seen.ttft >= prefill * (1 - 1e-9)
    assert 0 <= seen.batch <= slots
    if output > 2:
        assert seen.tpot >= base * (1 - 1 / output)


def test_percentile_between_values() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.5
    assert percentile([7.0], 99) == 7.0


@pytest.mark.parametrize(
    ("change", "words"),
    [({"slots": 0}, "slots"), ({"prefill": -1.0}, "prefill"), ({"base": 0.0, "slope": 0.0}, "takes time")],
)
def test_bad_service(change: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_loop(replace(REPLICA, **change), 4, 100)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_bad_load(bad: float) -> None:
    with pytest.raises(InputError):
        open_loop(REPLICA, bad, 100)
    with pytest.raises(InputError):
        open_loop(REPLICA, 1.0, bad)
