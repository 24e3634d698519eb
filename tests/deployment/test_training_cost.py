"""Training's memory and time against the papers' figures, and fine-tuning, distillation and merging built on them."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.hardware import Accelerator
from deployment.model import LayerGroup, Model
from deployment.physics.finetuning import (
    AIMS,
    distillation_cost,
    examples_needed,
    fewest_accelerators,
    finetuning_cost,
)
from deployment.physics.merging import largest_tensor, merge_cost
from deployment.physics.training import (
    MFU,
    NF4_BITS,
    Setup,
    flops,
    layer_activation_bytes,
    trained_parameters,
    training_cost,
    training_memory,
)
from phases.errors import InputError

GIB = 2**30
H100 = Accelerator("h100-sxm", "nvidia", round(79.18 * GIB), 3.35e12, {"bf16": 989e12}, 450e9, 50e9, 8, 700, "")


def gpt(hidden: int, heads: int, layers: int, vocabulary: int = 51200, context: int = 2048) -> Model:
    """The paper's layer: multi-head attention, an MLP of 4 · hidden, 12 · h² parameters."""
    group = LayerGroup(
        count=layers,
        mixer="attention",
        mixer_parameters=4 * hidden**2,
        dense_parameters=8 * hidden**2,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
    )
    return Model("gpt", "gpt2", (group,), hidden, vocabulary, context, vocabulary * hidden)


def llama_8b() -> Model:
    group = LayerGroup(
        count=32,
        mixer="attention",
        mixer_parameters=2 * 4096 * 4096 + 2 * 4096 * 1024,
        dense_parameters=3 * 4096 * 14336,
        heads=32,
        kv_heads=8,
        head_dim=128,
    )
    return Model("llama", "llama", (group,), 4096, 128256, 131072, 2 * 128256 * 4096)


@pytest.mark.parametrize(("hidden", "heads"), [(12288, 96), (6144, 64), (20480, 128), (25600, 160)])
def test_activations_of_the_papers_layer(hidden: int, heads: int) -> None:
    """Korthikanti et al. 2022, equations 1 and 6: s·b·h·(34 + 5·a·s/h), and 34·s·b·h with selective recomputation."""
    model, s, b = gpt(hidden, heads, 1), 2048, 3
    setup = Setup(sequence=s, batch=b, gated=False, dropout=True)
    group = model.layers[0]
    plain = layer_activation_bytes(group, hidden, setup, attention_matrix=True)
    assert plain == pytest.approx(s * b * hidden * (34 + 5 * heads * s / hidden))
    selective = layer_activation_bytes(group, hidden, setup, attention_matrix=False)
    assert selective == pytest.approx(34 * s * b * hidden)


def test_states_of_full_training() -> None:
    """16 bytes a parameter (ZeRO, section 3.1); sharded by stage."""
    model = llama_8b()
    alone = training_memory(model, Setup(zero=0))
    assert alone.weights + alone.gradients + alone.optimiser == pytest.approx(16 * model.parameters)
    stages = [training_memory(model, Setup(zero=z, accelerators=8)) for z in (0, 1, 2, 3)]
    p = model.parameters
    expected = [16 * p, 4 * p + 12 * p / 8, 2 * p + 14 * p / 8, 16 * p / 8]
    for memory, states in zip(stages, expected, strict=True):
        assert memory.weights + memory.gradients + memory.optimiser == pytest.approx(states)
        assert memory.activations == alone.activations


def test_adapters() -> None:
    """peft counts 41,943,040 for rank 16 on all linear layers of Llama-3.1-8B."""
    model = llama_8b()
    assert trained_parameters(model, Setup(method="lora", rank=16)) == 41_943_040
    lora, qlora = (training_memory(model, Setup(method=method)) for method in ("lora", "qlora"))
    assert lora.weights == pytest.approx(2 * (model.parameters + 41_943_040))
    body = model.parameters - model.embedding_parameters
    frozen = body * NF4_BITS / 8 + 2 * model.embedding_parameters
    assert qlora.weights == pytest.approx(frozen + 2 * 41_943_040)
    assert qlora.optimiser == lora.optimiser == 12 * 41_943_040


def test_arithmetic_of_a_known_run() -> None:
    """GPT-3: 3.14e23 FLOPs for 300 billion tokens (Brown et al. 2020, table D.1, without attention)."""
    model = gpt(12288, 96, 96, vocabulary=50257)
    total = flops(model, Setup(checkpointing="selective"), 300e9)
    assert total == pytest.approx(3.14e23, rel=0.04)
    assert flops(model, Setup(checkpointing="full"), 1) == pytest.approx(total / 300e9 * 4 / 3)
    lora = flops(model, Setup(method="lora", checkpointing="selective"), 1)
    assert lora == pytest.approx(total / 300e9 * 2 / 3)


def test_cost_of_a_run() -> None:
    model, setup = llama_8b(), Setup(accelerators=8)
    cost = training_cost(model, H100, setup, 1e9, 2.5)
    assert cost.hours.value == pytest.approx(flops(model, setup, 1e9) / (8 * 989e12 * MFU[1]) / 3600)
    assert cost.cost.value == pytest.approx(cost.hours.value * 8 * 2.5)
    assert cost.hours.low < cost.hours.value < cost.hours.high
    with pytest.raises(InputError, match="GiB"):
        training_cost(model, H100, Setup(), 1e9, 2.5)
    with pytest.raises(InputError, match="bf16"):
        training_cost(model, replace(H100, flops={"fp16": 1.0}), setup, 1e9, 2.5)
    with pytest.raises(InputError):
        training_cost(model, H100, setup, -1, 2.5)


def test_fewest_accelerators() -> None:
    model = llama_8b()
    assert fewest_accelerators(model, H100, Setup(method="qlora")).accelerators == 1
    full = fewest_accelerators(model, H100, Setup())
    assert full.accelerators > 1
    assert training_memory(model, full).total <= H100.memory_bytes
    assert training_memory(model, replace(full, accelerators=full.accelerators // 2)).total > H100.memory_bytes
    with pytest.raises(InputError, match="activations"):
        fewest_accelerators(model, replace(H100, memory_bytes=GIB), Setup())


def test_finetuning_and_distillation() -> None:
    model = llama_8b()
    cost = finetuning_cost(model, H100, 2.0, examples=1000, tokens_per_example=1024)
    same = training_cost(model, H100, Setup(method="lora", sequence=1024), 1000 * 1024 * 3, 2.0)
    assert cost == same
    student = gpt(2048, 16, 24)
    sizes = {"examples": 10_000, "prompt_tokens": 500, "output_tokens": 100}
    both = distillation_cost(1000.0, 8.0, student, H100, 2.0, **sizes)
    assert both.answers.value == pytest.approx(10_000 * 100 / 1000 / 3600 * 8)
    assert both.cost.value == pytest.approx(both.answers.value + both.training.cost.value)
    with pytest.raises(InputError):
        distillation_cost(0.0, 8.0, student, H100, 2.0, **sizes)
    with pytest.raises(InputError, match="examples"):
        finetuning_cost(model, H100, 2.0, examples=0, tokens_per_example=1024)


def test_data_sizes() -> None:
    assert examples_needed("style") == AIMS["style"]
    assert examples_needed("style", "skill") == AIMS["skill"]
    assert all(size.low < size.typical < size.high and size.reason for size in AIMS.values())
    with pytest.raises(InputError, match="known"):
        examples_needed("magic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="known"):
        examples_needed()


def test_merging() -> None:
    model = llama_8b()
    cost = merge_cost(model, 2, 1.0, with_base=True, disk_bandwidth=1e9)
    size = 2 * model.parameters
    assert cost.read_bytes == pytest.approx(3 * size) and cost.written_bytes == pytest.approx(size)
    assert cost.hours == pytest.approx(4 * size / 1e9 / 3600)
    assert largest_tensor(model) == 128256 * 4096
    assert cost.memory_bytes == pytest.approx(4 * 128256 * 4096 * 6)
    for parents, bandwidth in ((1, 1e9), (2, 0.0)):
        with pytest.raises(InputError):
            merge_cost(model, parents, 1.0, disk_bandwidth=bandwidth)


@settings(max_examples=100, deadline=None)
@given(
    sequence=st.integers(64, 8192), batch=st.integers(1, 8), accelerators=st.sampled_from([1, 2, 8, 64]),
    zero=st.sampled_from([0, 1, 2, 3]), optimiser=st.sampled_from(["adamw", "adamw8bit", "sgd"]),
)  # fmt: skip
def test_order_of_methods(sequence: int, batch: int, accelerators: int, zero: int, optimiser: str) -> None:
    model = llama_8b()
    shared = Setup(sequence=sequence, batch=batch, accelerators=accelerators, zero=zero, optimiser=optimiser)  # type: ignore[arg-type]
    full, lora, qlora = (training_memory(model, replace(shared, method=m)) for m in ("full", "lora", "qlora"))
    assert full.total > lora.total > qlora.total
    kept = [training_memory(model, replace(shared, checkpointing=c)).activations for c in ("none", "selective", "full")]
    assert kept[0] > kept[1] > kept[2]
    more = training_memory(model, replace(shared, accelerators=2 * accelerators))
    assert more.total <= full.total


@pytest.mark.parametrize("change", [{"sequence": 0}, {"batch": 0}, {"accelerators": 0}, {"accelerators": 10_000}])
def test_bad_setup(change: dict[str, int]) -> None:
    with pytest.raises(InputError):
        training_memory(llama_8b(), replace(Setup(), **change))  # type: ignore[arg-type]
