"""`estimate`: floors and order over random systems and loads, both loops, what is refused, and how long it takes."""

import math
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployment.atlas import catalogue
from deployment.hardware import Accelerator
from deployment.market.accelerators import accelerator, accelerators
from deployment.model import Model
from deployment.physics.calibration_store import Correction
from deployment.physics.estimate import Prepared, estimate, offline_throughput, prepare
from deployment.physics.latency import closed_loop
from deployment.serving import Estimate, Figure, Load, Serving
from phases.errors import InputError

LLAMA = catalogue.model("meta-llama/Llama-3.1-8B-Instruct")
H100 = accelerator("h100-sxm")
MODELS = ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b", "deepseek-ai/DeepSeek-R1")
HYBRIDS = ("Qwen/Qwen3-Next-80B-A3B-Instruct", "google/gemma-3-27b-it", "nvidia/Nemotron-H-56B-Base-8K")
CHOSEN = tuple(catalogue.model(name) for name in (*MODELS, *HYBRIDS))
"""Dense, experts, windows, latent attention, recurrences."""


@pytest.fixture(autouse=True)
def _nothing_observed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_CALIBRATION", str(tmp_path / "none.json"))


@st.composite
def systems(draw: st.DrawFn) -> tuple[Model, Accelerator, Serving]:
    serving = Serving(
        engine=draw(st.sampled_from(("vllm", "sglang", "trtllm", "tgi"))),
        precision=draw(st.sampled_from(("stored", "bf16", "fp8", "int4", "nvfp4"))),
        kv_bits=draw(st.sampled_from((8, 16))),
        tp=draw(st.sampled_from((1, 2, 4, 8))),
        pp=draw(st.sampled_from((1, 2))),
        dp=draw(st.sampled_from((1, 2))),
        ep=draw(st.sampled_from((1, 2))),
        prefix_cached=draw(st.sampled_from((0.0, 0.5))),
        draft_tokens=draw(st.sampled_from((0, 3))),
    )
    return draw(st.sampled_from(CHOSEN)), draw(st.sampled_from(accelerators())), serving


@st.composite
def loads(draw: st.DrawFn) -> tuple[int, int, float]:
    return draw(st.integers(1, 4000)), draw(st.integers(1, 2000)), draw(st.floats(1, 2000))


def ready(system: tuple[Model, Accelerator, Serving], prompt: int, output: int) -> Prepared | None:
    """None where the system cannot hold it: that is another test's."""
    try:
        return prepare(*system, prompt, output, corrected=Correction())
    except InputError:
        return None


def holds(system: tuple[Model, Accelerator, Serving], load: tuple[int, int, float]) -> None:
    """Everything that has to hold of one system under one load."""
    prompt, output, concurrency = load
    here = ready(system, prompt, output)
    if here is None:
        return
    found = here.at(Load(prompt, output, concurrency=concurrency))
    _floors(found)
    more = here.at(Load(prompt, output, concurrency=2 * concurrency))
    _not_faster(more, found)
    model, gpu, serving = system
    wider = prepare(model, replace(gpu, bandwidth=2 * gpu.bandwidth), serving, prompt, output, Correction())
    _not_faster(found, wider.at(Load(prompt, output, concurrency=concurrency)))
    longer = ready(system, 2 * prompt, output)
    if longer is not None:
        assert _ge(longer.at(Load(2 * prompt, output, concurrency=concurrency)).ttft.value, found.ttft.value)
    rate = concurrency / 50
    slow, fast = (here.at(Load(prompt, output, rate=r)) for r in (rate, 1.5 * rate))
    _floors(slow)
    _not_faster(fast, slow)
    for percent in (95, 99):
        assert _ge(fast.ttft_percentiles[percent].value, slow.ttft_percentiles[percent].value)


def _floors(found: Estimate) -> None:
    assert found.floor_tpot > 0
    assert found.batch > 0
    for figure in (found.tpot, *found.tpot_percentiles.values()):
        assert found.floor_tpot <= figure.low <= figure.value <= figure.high
    for figure in (found.ttft, *found.ttft_percentiles.values()):
        assert 0 < figure.low <= figure.value <= figure.high
    for series in (found.ttft_percentiles, found.tpot_percentiles):
        assert series[50].value <= series[95].value <= series[99].value


def _not_faster(slower: Estimate, faster: Estimate) -> None:
    assert _ge(slower.ttft.value, faster.ttft.value)
    assert _ge(slower.tpot.value, faster.tpot.value)


def _ge(a: float, b: float) -> bool:
    return a >= b * (1 - 1e-9)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(systems(), loads())
def test_floors_and_order_hold(system: tuple[Model, Accelerator, Serving], load: tuple[int, int, float]) -> None:
    holds(system, load)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(systems(), loads())
def test_floors_and_order_hold_ten_thousand_times(
    system: tuple[Model, Accelerator, Serving], load: tuple[int, int, float]
) -> None:
    holds(system, load)


@pytest.mark.parametrize("concurrency", [1.0, 17.0, 5000.0])
@pytest.mark.parametrize("model", CHOSEN[:5], ids=lambda model: model.name)
def test_the_fast_path_is_the_fitted_formula(model: Model, concurrency: float) -> None:
    here = prepare(model, accelerator("b200-sxm"), Serving(tp=8, draft_tokens=1), 700, 300, Correction())
    found = here.at(Load(700, 300, concurrency=concurrency))
    times = closed_loop(here.system.known.terms, here.system.factors, replace(here.case, concurrency=concurrency))
    assert found.ttft.value == pytest.approx(times.ttft)
    assert found.tpot.value == pytest.approx(max(times.tpot, found.floor_tpot))
    assert sum(found.parts.values()) == pytest.approx(times.tpot)


def test_the_example_of_the_prd_is_not_below_its_floor() -> None:
    found = estimate(LLAMA, accelerator("l4"), Serving(precision="bf16"), Load(128, 64, concurrency=1))
    assert found.floor_tpot > 16.06e9 / 300e9
    assert found.tpot.low >= found.floor_tpot  # the PRD says 42 ms


def test_a_closed_loop_never_runs_more_than_the_cache_holds() -> None:
    found = estimate(LLAMA, accelerator("l4"), Serving(precision="bf16"), Load(4000, 1000, concurrency=500))
    assert found.batch < 20
    assert found.batch * 4500 * 131072 <= found.memory.kv_pool
    assert any("wait" in note for note in found.notes)
    assert found.throughput.value == pytest.approx(found.batch / found.tpot.value)


def test_an_open_loop_holds_littles_law_and_passes_on_what_arrives() -> None:
    found = estimate(LLAMA, H100, Serving(precision="bf16"), Load(1024, 256, rate=8.0))
    assert found.batch == pytest.approx(8.0 * 256 * found.tpot.value, rel=1e-6)
    assert found.throughput == Figure(2048.0, 2048.0, 2048.0, "analytic")


def test_beyond_capacity_the_queue_has_no_end() -> None:
    found = estimate(LLAMA, H100, Serving(precision="bf16"), Load(1024, 256, rate=500.0))
    assert math.isinf(found.ttft.value)
    assert math.isinf(found.ttft_percentiles[50].value)
    assert any("without end" in note for note in found.notes)
    assert found.throughput.value < 500 * 256


def test_a_cached_prefix_and_drafts_help() -> None:
    load = Load(3000, 300, concurrency=8)
    servings = [Serving(precision="bf16", prefix_cached=0.9), Serving(precision="bf16", draft_tokens=3, acceptance=0.8)]
    plain, cached, drafted = (estimate(LLAMA, H100, s, load) for s in (Serving(precision="bf16"), *servings))
    assert cached.ttft.value < plain.ttft.value
    assert drafted.tpot.value < plain.tpot.value


def test_a_system_unlike_the_fits_has_wider_intervals_and_says_so() -> None:
    load = Load(1024, 256, concurrency=8)
    known, new = (estimate(LLAMA, gpu, Serving(precision="bf16"), load) for gpu in (H100, accelerator("mi300x")))
    assert new.tpot.high / new.tpot.value > known.tpot.high / known.tpot.value
    assert any("mi300x" in note for note in new.notes)
    assert not known.notes


def test_offline_throughput_is_that_of_a_full_replica() -> None:
    serving = Serving(precision="bf16")
    most = offline_throughput(LLAMA, H100, serving, 1024, 256).value
    assert most >= estimate(LLAMA, H100, serving, Load(1024, 256, concurrency=32)).throughput.value


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (Load(0, 10, concurrency=1), "prompt_tokens = 0"),
        (Load(10, -1, concurrency=1), "output_tokens = -1"),
        (Load(10, 10), "either concurrency"),
        (Load(10, 10, 1.0, 1.0), "not both"),
        (Load(10, 10, concurrency=-3), "concurrency = -3"),
        (Load(10, 10, concurrency=math.nan), "concurrency = nan"),
        (Load(10, 10, rate=1e9), "rate = 1000000000"),
        (Load(200_000, 10, concurrency=1), "more than the 131072"),
    ],
)
def test_loads_that_cannot_be_are_refused(load: Load, words: str) -> None:
    with pytest.raises(InputError, match=words):
        estimate(LLAMA, H100, Serving(), load)


@pytest.mark.parametrize(
    ("serving", "words"),
    [
        (Serving(tp=3), "does not divide the 32 heads"),
        (Serving(prefix_cached=1.5), "prefix_cached = 1.5"),
        (Serving(acceptance=2.0), "acceptance"),
        (Serving(draft_tokens=-1), "draft"),
    ],
)
def test_splits_that_cannot_be_are_refused(serving: Serving, words: str) -> None:
    with pytest.raises(InputError, match=words):
        estimate(LLAMA, H100, serving, Load(10, 10, concurrency=1))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="does not fit"):
        estimate(catalogue.model("deepseek-ai/DeepSeek-R1"), H100, Serving(), Load(10, 10, concurrency=1))


def test_an_estimate_takes_milliseconds() -> None:
    estimate(LLAMA, H100, Serving(), Load(1024, 256, concurrency=8))
    begin = time.perf_counter()
    for _ in range(20):
        estimate(LLAMA, H100, Serving(), Load(1024, 256, concurrency=8))
    assert (time.perf_counter() - begin) / 20 < 0.020
