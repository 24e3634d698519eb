"""The warm-up rule against measured start-ups of vLLM, the engines' own rules, and invariants of the plan."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.hardware import Accelerator
from deployment.model import LayerGroup, Model
from deployment.physics.engines import GIB, facts, sglang_share
from deployment.physics.memory import (
    FIXED_BYTES,
    activation_bytes,
    expert_padding_bytes,
    max_sequences,
    memory_plan,
    sequence_bytes,
)
from deployment.serving import Serving
from phases.errors import InputError

H100 = Accelerator("h100-sxm", "nvidia", round(79.18 * GIB), 3.35e12, {"bf16": 989e12}, 450e9, 50e9, 8, 700, "")
L4 = replace(H100, name="l4", memory_bytes=round(22.0 * GIB))


def shape(
    vocabulary: int,
    hidden: int,
    inner: int,
    *,
    experts: int = 0,
    active: int = 0,
    expert_inner: int = 0,
    other: int = 0,
) -> Model:
    group = LayerGroup(
        count=32,
        mixer="attention",
        mixer_parameters=4 * hidden * hidden,
        dense_parameters=3 * hidden * inner,
        expert_parameters=3 * hidden * expert_inner,
        experts=experts,
        active_experts=active,
        heads=32,
        kv_heads=8,
        head_dim=128,
    )
    return Model("m", "m", (group,), hidden, vocabulary, 8192, vocabulary * hidden, other_parameters=other)


WARM_UPS = [
    # vLLM 0.19.0 on an H100, 1,024 sequences and 8,192 tokens: name, shape, TP, measured GiB (source: M19)
    ("Qwen2.5-7B", shape(152064, 3584, 18944), 1, 2.21),
    ("Qwen2.5-7B TP4", shape(152064, 3584, 18944), 4, 2.21),
    ("Qwen2.5-72B TP2", shape(152064, 8192, 29568), 2, 2.29),
    ("Qwen3-8B", shape(151936, 4096, 12288), 1, 2.21),
    ("Llama-3.1-8B", shape(128256, 4096, 14336), 1, 1.89),
    ("Llama-3.3-70B TP2", shape(128256, 8192, 28672), 2, 1.96),
    ("gemma-2-2b", shape(256000, 2304, 9216), 1, 3.62),
    ("gemma-2-27b", shape(256000, 4608, 36864), 1, 3.66),
    ("phi-4", shape(100352, 5120, 17920), 1, 1.52),
    ("granite-3.1-8b", shape(49155, 4096, 12800), 1, 0.85),
    ("CodeLlama-7b", shape(32016, 4096, 11008), 1, 0.77),
    ("Mistral-Small-24B", shape(131072, 5120, 32768, other=400_000_000), 1, 2.03),
    ("granite-vision-2b", shape(49156, 2048, 8192, other=400_000_000), 1, 0.79),
    ("Mixtral-8x7B TP2", shape(32000, 4096, 0, experts=8, active=2, expert_inner=14336), 2, 1.21),
    ("DeepSeek-V2-Lite", shape(102400, 2048, 2816, experts=64, active=6, expert_inner=1408), 1, 1.93),
    ("Qwen1.5-MoE-A2.7B", shape(151936, 2048, 5632, experts=60, active=4, expert_inner=1408), 1, 2.47),
    ("Qwen3-30B-A3B", shape(151936, 2048, 0, experts=128, active=8, expert_inner=768), 1, 2.68),
]


@pytest.mark.parametrize(("name", "model", "tp", "measured"), WARM_UPS, ids=[row[0] for row in WARM_UPS])
def test_warm_up_of_0_19_within_a_tenth_of_a_gib(name: str, model: Model, tp: int, measured: float) -> None:
    predicted = activation_bytes(model, H100, Serving(tp=tp), facts("vllm", "0.19.0")) / GIB
    assert predicted == pytest.approx(measured, abs=0.1)


def test_bytes_a_logit_leave_one_out() -> None:
    """The one fitted constant, from all other dense runs, predicts each to 0.03 GiB."""
    rows = [(m, gib) for _, m, _, gib in WARM_UPS if m.vocabulary > 90_000 and not m.layers[0].experts]
    rows = [(m, gib) for m, gib in rows if not m.other_parameters]

    def bytes_a_logit(model: Model, gib: float) -> float:
        return (gib * GIB - FIXED_BYTES - 2 * 9216 * model.hidden) / (1024 * model.vocabulary)

    for i, (model, gib) in enumerate(rows):
        others = [bytes_a_logit(*row) for j, row in enumerate(rows) if j != i]
        fitted = sum(others) / len(others)
        assert fitted == pytest.approx(facts("vllm", "0.19").sampler_bytes, abs=0.05)
        assert (fitted - bytes_a_logit(model, gib)) * 1024 * model.vocabulary / GIB == pytest.approx(0, abs=0.03)


def test_older_versions_and_defaults() -> None:
    llama, qwen, gemma = shape(128256, 4096, 14336), shape(151936, 5120, 17408), shape(262208, 2560, 10240)
    # vLLM 0.6.5, 256 sequences: 1.26 GiB (pull request 10511); Qwen3-14B on 0.16: 5.64, on 0.17: 2.23 (M19)
    assert activation_bytes(llama, H100, Serving(), facts("vllm", "0.6.5")) / GIB == pytest.approx(1.26, abs=0.02)
    assert activation_bytes(qwen, H100, Serving(), facts("vllm", "0.16.0")) / GIB == pytest.approx(5.64, abs=0.02)
    assert activation_bytes(qwen, H100, Serving(), facts("vllm", "0.17.1")) / GIB == pytest.approx(2.23, abs=0.02)
    assert facts("vllm").utilisation == facts("vllm", "v0.22.0").utilisation == 0.92
    assert facts("vllm", "0.19.1").utilisation == facts("vllm", "0.9.2").utilisation == 0.90
    assert facts("vllm", "0.11").max_sequences(H100) == 1024
    assert facts("vllm", "0.11").max_sequences(replace(H100, name="a100-80gb-sxm")) == 256
    assert facts("vllm", "0.11").max_batched_tokens(L4) == 2048
    # 0.10, offline defaults (16,384 tokens): 9.96 GiB with the images' encoder (pull request 21489)
    offline = replace(facts("vllm", "0.10"), tokens=(2048, 16384))
    images = replace(gemma, other_parameters=400_000_000)
    assert activation_bytes(images, H100, Serving(), offline) / GIB == pytest.approx(9.96, rel=0.03)


def test_graphs_need_room_that_a_full_share_does_not_leave() -> None:
    model = shape(128256, 4096, 14336)
    whole = memory_plan(model, H100, Serving(version="0.19", utilisation=1.0))
    assert whole.usable < H100.memory_bytes - 0.51 * GIB
    deducted = memory_plan(model, H100, Serving(version="0.22", utilisation=0.9))
    before = memory_plan(model, H100, Serving(version="0.19", utilisation=0.9))
    assert before.kv_pool - deducted.kv_pool == pytest.approx(32 * 0.022 * GIB)


def test_parts_add_up_and_overheads_are_per_accelerator() -> None:
    model = shape(128256, 8192, 28672)
    one, two = (memory_plan(model, H100, Serving(version="0.19", tp=tp)) for tp in (1, 2))
    for plan in (one, two):
        assert plan.usable == pytest.approx(plan.weights + plan.activation + plan.non_torch + plan.kv_pool)
    assert two.weights == pytest.approx(one.weights / 2)
    assert two.activation == pytest.approx(one.activation)  # not divided: each accelerator warms up
    assert two.non_torch > one.non_torch


def test_other_engines() -> None:
    model = shape(128256, 4096, 14336)
    # SGLang on 80 GiB, TP 1: 512 + 1.5 · 8192 + 2 · 256 + 128 MiB are set aside
    assert sglang_share(80 * GIB, 1, 1) == pytest.approx(1 - (512 + 12288 + 512 + 128) / 81920)
    assert sglang_share(79.18 * GIB, 1, 1) > sglang_share(24 * GIB, 4, 1)
    assert memory_plan(model, H100, Serving(engine="sglang")).activation == 0
    # TensorRT-LLM takes 0.9 of what is free
    plan = memory_plan(model, H100, Serving(engine="trtllm"))
    free = H100.memory_bytes - plan.weights - plan.activation - plan.non_torch
    assert plan.kv_pool == pytest.approx(0.9 * free)
    # llama.cpp prints "CUDA0 compute buffer size = 258.50 MiB" for Llama-3-8B
    assert activation_bytes(model, H100, Serving(), facts("llama.cpp")) != 0
    buffer = memory_plan(model, H100, Serving(engine="llama.cpp")).activation
    assert buffer / 2**20 == pytest.approx(258.5)
    assert memory_plan(model, H100, Serving(engine="tgi")).fits


def test_mxfp4_rows_are_padded() -> None:
    expert = LayerGroup(1, "attention", 1, expert_parameters=3 * 2880 * 2880, experts=32, active_experts=4, heads=1)
    model = Model("m", "m", (expert,), 2880, 100, 4096, 100, stored_bits=4.25)
    values = 32 * 3 * 2880 * 2880 / 2
    assert expert_padding_bytes(model, Serving()) == pytest.approx(values * (3072 / 2880 - 1))
    assert expert_padding_bytes(model, Serving(precision="bf16")) == 0
    assert expert_padding_bytes(replace(model, hidden=3072), Serving()) == 0


def test_sequences_of_a_replica() -> None:
    model = shape(128256, 4096, 14336)
    plan, each = memory_plan(model, H100, Serving()), sequence_bytes(model, Serving(), 4000)
    assert max_sequences(model, H100, Serving(), 4000) == int(plan.kv_pool // each)
    assert max_sequences(model, H100, Serving(), 1) == facts("vllm").max_sequences(H100)
    assert max_sequences(model, H100, Serving(dp=2), 1) == 2 * facts("vllm").max_sequences(H100)
    assert max_sequences(model, replace(L4, memory_bytes=8 * GIB), Serving(), 100) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"engine": "tensorflow"}, "known are"),
        ({"version": "0.1"}, "oldest"),
        ({"version": "latest"}, "number"),
        ({"utilisation": 1.2}, "share"),
        ({"max_context": 0}, "at least 1"),
        ({"tp": 0}, "tp"),
        ({"pp": 99}, "layers"),
        ({"precision": "fp3"}, "precision"),
    ],
)
def test_bad_input(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        memory_plan(shape(1000, 512, 1024), H100, Serving(**change))  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(
    hidden=st.sampled_from([1024, 2880, 4096, 8192]),
    vocabulary=st.integers(1000, 300_000),
    engine=st.sampled_from(["vllm", "sglang", "trtllm", "tgi", "llama.cpp"]),
    tp=st.sampled_from([1, 2, 4, 8]),
    context=st.integers(1, 100_000),
)
def test_more_memory_and_shorter_sequences_never_fit_worse(
    hidden: int, vocabulary: int, engine: str, tp: int, context: int
) -> None:
    model = shape(vocabulary, hidden, 4 * hidden)
    serving = Serving(engine=engine, tp=tp, max_context=context)  # type: ignore[arg-type]
    small = replace(H100, memory_bytes=71 * GIB)
    plan, less = memory_plan(model, H100, serving), memory_plan(model, small, serving)
    assert plan.kv_pool >= less.kv_pool
    assert min(plan.weights, plan.activation, plan.non_torch, plan.usable) >= 0
    shorter = memory_plan(model, H100, replace(serving, max_context=max(1, context // 2)))
    assert shorter.kv_per_sequence <= plan.kv_per_sequence
    assert shorter.kv_pool == plan.kv_pool
