"""Weights on one accelerator: measured ones, closed forms of sharding and of experts that are read, and invariants."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.atlas import catalogue
from deployment.model import LayerGroup, Model
from deployment.physics.weights import (
    PRECISION_BITS,
    as_in_the_prd,
    bytes_per_accelerator,
    checkpoint_bytes,
    layer_bits,
    touched_bytes,
    touched_share,
)
from deployment.serving import Precision, Serving
from phases.errors import InputError

GIB = 2**30
DENSE = LayerGroup(
    count=2, mixer="attention", mixer_parameters=300, dense_parameters=500, heads=8, kv_heads=2, head_dim=4
)
MIXED = replace(DENSE, dense_parameters=40, expert_parameters=100, experts=8, active_experts=2)


def small(*groups: LayerGroup) -> Model:
    return Model("x", "llama", groups, hidden=10, vocabulary=100, context=64, embedding_parameters=2000)


def shipped(name: str) -> Model:
    return next(model for model in catalogue.shipped() if model.name == name)


@pytest.mark.parametrize(
    ("name", "precision", "tp", "gib"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "stored", 1, 14.99),
        ("Qwen/Qwen3-0.6B", "stored", 1, 1.12),
        ("Qwen/Qwen3-32B", "stored", 1, 61.03),
        ("Qwen/Qwen3-32B", "stored", 2, 30.59),
        ("meta-llama/Llama-3.3-70B-Instruct", "fp8", 1, 67.72),
        ("meta-llama/Llama-3.3-70B-Instruct", "fp8", 2, 33.88),
    ],
)
def test_weights_are_what_vllm_measured_on_an_h100(name: str, precision: Precision, tp: int, gib: float) -> None:
    serving = Serving(precision=precision, tp=tp)
    assert bytes_per_accelerator(shipped(name), serving) / GIB == pytest.approx(gib, rel=0.01)


def test_the_floor_of_the_prds_example() -> None:
    """Llama-3-8B on an L4 cannot take less than 16.06 GB / 300 GB/s = 53.5 ms a token."""
    read = touched_bytes(shipped("meta-llama/Meta-Llama-3.1-8B"), Serving(), 1)
    assert read / 300e9 == pytest.approx(53.5e-3, rel=0.001)


def test_everything_is_counted_once() -> None:
    model = small(DENSE)
    assert checkpoint_bytes(model) == 2 * model.parameters == 2 * (2 * 800 + 2000)


def test_tensor_parallelism_divides_but_not_below_one_kv_head() -> None:
    model = small(DENSE)
    assert bytes_per_accelerator(model, Serving(tp=2)) == checkpoint_bytes(model) / 2
    # 4 accelerators share 2 KV heads: each holds a whole one, of 10 × (4 + 4), in place of half of it
    extra = 2 * 10 * 8 * (1 - 2 / 4) * 2
    assert bytes_per_accelerator(model, Serving(tp=4)) == checkpoint_bytes(model) / 4 + extra


def test_latent_down_projections_are_on_every_accelerator() -> None:
    group = replace(DENSE, mixer="latent", replicated_parameters=100)
    model = small(group)
    assert bytes_per_accelerator(model, Serving(tp=4)) == 2 * (2 * (200 / 4 + 100 + 500 / 4) + 2000 / 4)


def test_experts_are_shared_over_data_parallel_attention() -> None:
    serving = Serving(tp=2, dp=4, ep=8)
    assert bytes_per_accelerator(small(MIXED), serving) == 2 * (2 * (300 / 2 + 40 / 2 + 800 / 8) + 2000 / 2)


def test_the_fullest_stage_of_a_pipeline_counts() -> None:
    three = small(replace(DENSE, count=3))
    # 2 of 3 layers, and one of two tables, which are not tied
    assert bytes_per_accelerator(three, Serving(pp=2)) == pytest.approx(2 * (2 * 800 + 1000))
    tied = replace(three, embedding_parameters=1000)
    assert bytes_per_accelerator(tied, Serving(pp=2)) == pytest.approx(2 * (2 * 800 + 1000))


def test_parts_have_bits_of_their_own_as_stored_and_one_precision_else() -> None:
    model = small(replace(MIXED, expert_bits=4.25))
    assert layer_bits(model) == (340 * 16 + 800 * 4.25) / 1140
    assert checkpoint_bytes(model) == (2 * (340 * 16 + 800 * 4.25) + 2000 * 16) / 8
    assert bytes_per_accelerator(model, Serving(precision="fp8")) == 2 * 1140 + 2000 * 2
    assert layer_bits(model, "nvfp4") == 4.5


def test_the_prds_formula_is_kept_for_comparison() -> None:
    assert as_in_the_prd(small(DENSE), "fp8", overhead=1.25) == 3600 * 1.25


@pytest.mark.parametrize(("batch", "share"), [(1, 2 / 8), (2, 1 - 0.75**2), (64, 1 - 0.75**64)])
def test_experts_that_some_token_chose(batch: int, share: float) -> None:
    assert touched_share(MIXED, batch) == pytest.approx(share)
    read = touched_bytes(small(MIXED), Serving(), batch)
    assert read == pytest.approx(2 * (2 * (340 + 800 * share) + 2000))


def test_a_dense_layer_has_no_experts_to_read() -> None:
    assert touched_share(DENSE, 5) == 0.0


def test_a_large_batch_reads_the_whole_model() -> None:
    model = shipped("Qwen/Qwen3-30B-A3B")
    assert touched_bytes(model, Serving(tp=2), 10_000) == pytest.approx(bytes_per_accelerator(model, Serving(tp=2)))


def test_what_is_loaded_and_not_used_is_not_read() -> None:
    model = replace(small(DENSE), other_parameters=5000)
    assert checkpoint_bytes(model) - touched_bytes(model, Serving(), 1) == 2 * 5000


@pytest.mark.parametrize("batch", [0, -1])
def test_a_step_without_sequences(batch: int) -> None:
    with pytest.raises(InputError, match=f"batch = {batch}"):
        touched_bytes(small(DENSE), Serving(), batch)


def test_an_unknown_precision() -> None:
    with pytest.raises(InputError, match="one of stored, bf16, fp8"):
        layer_bits(small(DENSE), "fp3")


@settings(max_examples=200)
@given(
    index=st.integers(0, 10**6),
    tp=st.sampled_from((1, 2, 4, 8, 16)),
    batch=st.floats(0.1, 5000),
    precision=st.sampled_from(("stored", *PRECISION_BITS)),
)
def test_reading_is_at_most_holding_and_grows_with_the_batch(index: int, tp: int, batch: float, precision: str) -> None:
    model = catalogue.shipped()[index % len(catalogue.shipped())]
    serving = Serving(tp=tp, precision=precision)  # type: ignore[arg-type]
    held, read = bytes_per_accelerator(model, serving), touched_bytes(model, serving, batch)
    assert 0 < read <= held * (1 + 1e-12)
    assert read <= touched_bytes(model, serving, 2 * batch)
    assert bytes_per_accelerator(model, replace(serving, tp=2 * tp)) < held
    assert held * tp >= bytes_per_accelerator(model, replace(serving, tp=1)) * (1 - 1e-12)
