"""The formulas: equal to closed forms by hand, the same for one point and for many, never below bytes / bandwidth."""

from dataclasses import replace

import numpy as np
import pytest

from deployment.hardware import Accelerator
from deployment.model import LayerGroup, Model
from deployment.physics import communication, decode, latency, prefill
from deployment.physics.coefficients import FEATURES, OFFSETS, TERMS
from deployment.physics.latency import Case, closed_loop, stacked
from deployment.physics.precision import compute_format, unpacked, weight_format
from deployment.physics.systems import features
from deployment.physics.terms import Work, larger, smaller, work
from deployment.serving import Serving
from phases.errors import InputError

GROUP = LayerGroup(
    count=4, mixer="attention", mixer_parameters=1000, dense_parameters=3000, heads=8, kv_heads=2, head_dim=16
)
DENSE = Model("me/dense", "llama", (GROUP,), hidden=128, vocabulary=500, context=4096, embedding_parameters=64000)
MOE = replace(
    DENSE,
    name="me/moe",
    layers=(replace(GROUP, dense_parameters=0, expert_parameters=900, experts=16, active_experts=2),),
)
GPU = Accelerator(
    name="one",
    vendor="none",
    memory_bytes=10**9,
    bandwidth=1e9,
    flops={"bf16": 1e12, "fp8": 2e12},
    link_bandwidth=1e8,
    network_bandwidth=1e7,
    link_domain=2,
    power_watts=1.0,
    source="",
)
ONES = dict.fromkeys(OFFSETS, 1.0)
_SHARES = ("weight_bandwidth", "cache_bandwidth", "decode_utilisation", "prefill_utilisation")
IDEAL = dict.fromkeys(TERMS, 0.0) | dict.fromkeys((*_SHARES, "attention_utilisation", "peak_exponent"), 1.0)
"""No overheads, everything at its peak: the formulas are then the physics alone."""
USUAL = {name: prior.value for name, prior in TERMS.items()}


def case(model: Model = DENSE, serving: Serving | None = None, **changed: float) -> Case:
    serving = serving or Serving(precision="bf16")
    counts = work(model, GPU, serving, 100, 50)
    loads = {"concurrency": 4.0, "slots": 1000.0} | changed
    return Case(
        prefill=counts,
        decode=counts,
        output_tokens=50.0,
        prefill_workers=1.0,
        decode_workers=1.0,
        disaggregated=0.0,
        features=features(model, GPU, serving),
        **loads,
    )


def test_one_step_by_hand() -> None:
    # 4 layers of 4,000 weights and the head's 64,000, in bf16; 125 tokens of 2 · 2 heads · 16 · 2 bytes in 4 layers.
    parts = decode.parts(IDEAL, ONES, case().decode, 3.0)
    assert parts["weights"] == pytest.approx((4 * 4000 + 64000) * 2 / 1e9)
    assert parts["kv"] == pytest.approx(3 * 125 * 4 * 2 * 2 * 16 * 2 / 1e9)
    assert parts["compute"] == pytest.approx(3 * 2 * (4 * 4000 + 64000) / 1e12)
    assert parts["attention"] == pytest.approx(3 * 4 * 2 * 8 * 32 * 125 / 1e12)


def test_one_prompt_by_hand() -> None:
    # 2 · N · S without the head, and S² / 2 pairs of 8 heads of 16 + 16 elements, 2 operations each, in 4 layers.
    seconds = prefill.marginal_seconds(IDEAL, ONES, case().prefill)
    assert seconds == pytest.approx((2 * 16000 * 100 + 4 * 2 * 8 * 32 * 100**2 / 2) / 1e12)


def test_a_cached_prefix_leaves_the_difference_of_squares() -> None:
    counts = work(DENSE, GPU, Serving(precision="bf16", prefix_cached=0.6), 100, 50)
    assert counts.prompt_flops == pytest.approx(2 * 16000 * 40)
    assert counts.prompt_attention_flops == pytest.approx(4 * 2 * 8 * 32 * (100**2 - 60**2) / 2)


def test_a_window_bounds_pairs_and_bytes() -> None:
    narrow = replace(DENSE, layers=(replace(GROUP, window=10),))
    counts = work(narrow, GPU, Serving(precision="bf16"), 100, 50)
    assert counts.prompt_attention_flops == pytest.approx(4 * 2 * 8 * 32 * (10**2 / 2 + 90 * 10))
    assert counts.sequence_bytes == pytest.approx(10 * 4 * 2 * 2 * 16 * 2)


def test_an_all_reduce_by_hand() -> None:
    # Ring: 2 (t − 1) / t of the message over the link, twice a layer.
    counts = work(DENSE, GPU, Serving(precision="bf16", tp=2), 100, 50)
    terms = IDEAL | {"message": 1.0, "all_reduce": 1e-6, "all_reduce_hop": 1e-7}
    seconds = communication.step_seconds(terms, counts, 3.0)
    assert seconds == pytest.approx(2 * 4 * (1.1e-6 + 2 * 1 / 2 * 3 * 128 * 2 / 1e8))


def test_wider_than_a_node_the_network_is_the_link() -> None:
    counts = work(DENSE, GPU, Serving(precision="bf16", tp=4), 100, 50)
    assert (counts.link, counts.crosses) == (1e7, 1.0)


def test_touched_experts_grow_to_all_of_them() -> None:
    counts = work(MOE, GPU, Serving(precision="bf16"), 100, 50)
    one, many = (decode.weight_bytes(counts, float(b)) for b in (1, 10_000))
    assert many - one == pytest.approx(4 * 14 * 900 * 2)
    assert decode.weight_bytes(counts, 4.0) - one == pytest.approx(
        4 * 16 * 900 * 2 * (1 - (14 / 16) ** 4) - 4 * 2 * 900 * 2
    )


def test_no_reading_is_faster_than_the_bandwidth() -> None:
    fast = ONES | {"weights": 0.1, "step": 0.2}
    pool = case(MOE).decode
    for batch in (1.0, 7.0, 500.0):
        assert decode.step_seconds(USUAL, fast, pool, batch) >= decode.floor_seconds(pool, batch)
    parts = decode.parts(USUAL, fast, replace(pool, table_bytes=0.0), 7.0)
    assert parts["weights"] + parts["kv"] == pytest.approx(decode.floor_seconds(replace(pool, table_bytes=0.0), 7.0))


def test_a_pipeline_halves_the_work_of_a_stage_and_visits_all() -> None:
    one, two = (work(DENSE, GPU, Serving(precision="bf16", pp=pp), 100, 50) for pp in (1, 2))
    assert two.prompt_flops == pytest.approx(one.prompt_flops / 2)
    assert prefill.marginal_seconds(IDEAL, ONES, two) == pytest.approx(
        prefill.marginal_seconds(IDEAL, ONES, one) + 100 * 128 * 2 / 1e8
    )


def test_many_points_are_each_as_alone() -> None:
    alone = [case(), case(MOE), case(concurrency=900.0, slots=30.0), replace(case(), disaggregated=1.0)]
    together = closed_loop(USUAL, ONES, stacked(alone))
    for index, one in enumerate(alone):
        times = closed_loop(USUAL, ONES, one)
        assert together.ttft[index] == pytest.approx(times.ttft)
        assert together.tpot[index] == pytest.approx(times.tpot)


def test_who_finds_no_slot_waits_as_little_says() -> None:
    times = closed_loop(USUAL, ONES, case(concurrency=90.0, slots=30.0))
    within = closed_loop(USUAL, ONES, case(concurrency=30.0, slots=30.0))
    assert times.tpot == pytest.approx(within.tpot)
    assert latency.slot_wait(90.0, 30.0, 50 * times.tpot) == pytest.approx(2 * 50 * times.tpot)
    assert times.ttft > within.ttft + 2 * 50 * times.tpot


def test_a_starved_decode_pool_holds_what_it_is_fed() -> None:
    busy = replace(case(concurrency=1e6, slots=1e6), disaggregated=1.0)
    slow = ONES | {"prompt": 0.01 / prefill.marginal_seconds(USUAL, ONES, busy.prefill)}  # 10 ms each
    times = closed_loop(USUAL, slow, busy)
    assert times.batch == pytest.approx(50 * times.tpot / 0.01, rel=0.01)
    assert times.ttft == pytest.approx(1e6 * 0.01, rel=0.2)


def test_larger_and_smaller_are_maximum_and_minimum() -> None:
    a, b = np.array([1.0, -2.0, 3.0]), np.array([2.0, -5.0, 3.0])
    np.testing.assert_allclose(larger(a, b), np.maximum(a, b))
    np.testing.assert_allclose(smaller(a, b), np.minimum(a, b))


@pytest.mark.parametrize(
    ("precision", "kept", "used"),
    [("bf16", "bf16", "bf16"), ("fp8", "fp8", "fp8"), ("int4", "int4", "bf16"), ("nvfp4", "nvfp4", "bf16")],
)
def test_narrow_weights_are_unpacked_where_the_units_do_not_know_them(precision: str, kept: str, used: str) -> None:
    serving = Serving(precision=precision)  # type: ignore[arg-type]
    assert weight_format(DENSE, serving) == kept
    assert compute_format(DENSE, GPU, serving) == used
    assert unpacked(DENSE, GPU, serving) == (kept != "bf16" and used == "bf16")


def test_stored_formats_are_told_by_their_bits() -> None:
    found = [weight_format(replace(DENSE, stored_bits=bits), Serving()) for bits in (16.0, 8.0, 4.5, 4.25, 4.16)]
    assert found == ["bf16", "fp8", "nvfp4", "mxfp4", "int4"]


def test_an_accelerator_without_figures_is_refused() -> None:
    with pytest.raises(InputError, match="bf16"):
        work(DENSE, replace(GPU, flops={}), Serving(precision="bf16"), 10, 10)


def test_features_are_all_there_and_pairs_are_products() -> None:
    kind = features(MOE, GPU, Serving(engine="sglang", precision="fp8"), disaggregated=True)
    assert set(kind) == set(FEATURES)
    assert kind["sglang disaggregated"] == kind["sglang older"] == kind["moe"] == 1.0
    assert kind["trtllm disaggregated"] == kind["sglang latent"] == kind["fp4"] == 0.0


def test_works_fields_are_numbers() -> None:
    counts = work(MOE, GPU, Serving(precision="bf16", tp=2, ep=2), 100, 50)
    assert isinstance(counts, Work)
    assert all(isinstance(getattr(counts, name), float) for name in Work.__slots__)
