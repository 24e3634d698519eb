"""What training takes: memory of one accelerator, arithmetic, hours and money, for full training and for adapters.

Memory = weights + gradients + optimiser + activations, each of one accelerator:

- states in mixed precision with Adam: 2 + 2 + 12 bytes a parameter (bf16 weights and gradients; float32 copy, momentum
  and variance), sharded by ZeRO's stages (Rajbhandari et al. 2020, arXiv 1910.02054); frozen weights have only the 2,
  or 4.127 bits in QLoRA's NF4 with double quantisation (Dettmers et al. 2023, arXiv 2305.14314);
- activations of a layer as in Korthikanti et al. 2022 (arXiv 2205.05198), `s·b·h·(34 + 5·a·s/h)` bytes for the layer
  that they have, here tensor by tensor so that gated MLPs, grouped heads and experts count as they are.

Time = arithmetic / (accelerators · peak · MFU): `6·N·D` (Kaplan et al. 2020, arXiv 2001.08361) and attention, a third
more where activations are computed twice, a third less where the weights are frozen and need no gradient.
"""

from dataclasses import dataclass
from typing import Literal

from deployment.hardware import Accelerator
from deployment.model import LayerGroup, Model
from deployment.physics.engines import CONTEXT_BYTES
from deployment.serving import Figure
from phases.errors import InputError

Method = Literal["full", "lora", "qlora"]
NF4_BITS = 4.127
"""4 bits, and 0.127 for the doubly quantised scales of blocks of 64 (QLoRA, section 3)."""
OPTIMISER_BYTES = {"adamw": 12.0, "adamw8bit": 6.0, "sgd": 8.0}
"""A trained parameter's: float32 copy (4) and moments; 8-bit moments take 1 each (Dettmers et al. 2022)."""
MFU = (0.30, 0.40, 0.50)
"""Share of the peak in bf16: low, usual, high. MT-NLG 530B 30 %, Llama 3 38 to 43 %, PaLM 46 % (their papers)."""
MOST_ACCELERATORS = 4096


@dataclass(frozen=True, slots=True)
class Setup:
    """How a model is trained."""

    method: Method = "full"
    sequence: int = 2048
    """Tokens of one training sequence."""
    batch: int = 1
    """Sequences that one accelerator computes at once."""
    checkpointing: Literal["none", "selective", "full"] = "full"
    """What the backward pass computes again: nothing, the attention matrix (as FlashAttention does), whole layers."""
    optimiser: Literal["adamw", "adamw8bit", "sgd"] = "adamw"
    accelerators: int = 1
    zero: Literal[0, 1, 2, 3] = 3
    """What is sharded over them: 1 the optimiser, 2 gradients too, 3 weights too."""
    rank: int = 16
    """Of the adapters."""
    gated: bool = True
    """MLPs have a gate (SwiGLU), three matrices; else two."""
    dropout: bool = False
    """The paper's layer has dropout, today's have none."""


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes on one accelerator."""

    weights: float
    gradients: float
    optimiser: float
    activations: float

    @property
    def total(self) -> float:
        """With the CUDA context."""
        return self.weights + self.gradients + self.optimiser + self.activations + CONTEXT_BYTES


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What a run takes."""

    flops: float
    accelerators: int
    hours: Figure
    """Wall clock."""
    cost: Figure
    """In the price's currency."""


def trained_parameters(model: Model, setup: Setup) -> float:
    """Parameters that get a gradient: all, or the adapters on every dense matrix (routed experts have none).

    An adapter of rank r on a matrix from m to n has r · (m + n) (LoRA, Hu et al. 2022, arXiv 2106.09685).
    """
    if setup.method == "full":
        return float(model.parameters)
    return sum(group.count * setup.rank * _adapter_sides(group, model.hidden) for group in model.layers)


def training_memory(model: Model, setup: Setup) -> TrainingMemory:
    """Of one accelerator, bytes. Raises InputError for a setup that cannot be."""
    _check(setup)
    trained = trained_parameters(model, setup)
    shard = [setup.accelerators if setup.zero >= stage else 1 for stage in (1, 2, 3)]
    frozen = 0.0 if setup.method == "full" else model.parameters * 2.0
    if setup.method == "qlora":
        ends = model.embedding_parameters + model.other_parameters
        frozen = ends * 2.0 + (model.parameters - ends) * NF4_BITS / 8
    return TrainingMemory(
        weights=(frozen + 2 * trained) / shard[2],
        gradients=2 * trained / shard[1],
        optimiser=OPTIMISER_BYTES[setup.optimiser] * trained / shard[0],
        activations=_activation_bytes(model, setup),
    )


def layer_activation_bytes(group: LayerGroup, hidden: int, setup: Setup, *, attention_matrix: bool) -> float:
    """What one layer keeps for its backward pass, bytes: 2 an element, 1 for a dropout mask.

    With `attention_matrix`, plain attention without FlashAttention: `5·a·s²` with dropout, `2·a·s²` without.
    """
    tokens, mask = float(setup.sequence * setup.batch), 1 if setup.dropout else 0
    width = group.heads * (group.head_dim + (group.value_dim or group.head_dim))
    narrow = (group.kv_heads or group.heads) * (group.head_dim + (group.value_dim or group.head_dim))
    mixer = tokens * (2 * hidden + 2 * width + 2 * narrow + mask * hidden)  # input; Q and output; K and V
    if group.mixer == "none":
        mixer = 0.0
    elif group.mixer == "state":
        mixer = tokens * 2 * (hidden + group.mixer_parameters / hidden)
    elif attention_matrix:
        mixer += (5 if setup.dropout else 2) * group.heads * setup.sequence**2 * setup.batch
    matrices = 3 if setup.gated else 2
    inner = (group.dense_parameters + group.active_experts * group.expert_parameters) / (matrices * hidden)
    kept = 4 if setup.gated else 2  # gate, up, activation and product; or before and after the activation
    return mixer + tokens * (2 * hidden + 2 * kept * inner + mask * hidden) + 4 * tokens * hidden  # and both norms


def flops(model: Model, setup: Setup, tokens: float) -> float:
    """Floating-point operations to train on so many tokens."""
    _check(setup)
    attention = sum(
        group.count * 2 * min(setup.sequence, group.window or setup.sequence) * group.heads
        * (group.head_dim + (group.value_dim or group.head_dim)) / 2
        for group in model.layers
    )  # fmt: skip
    forward = 2 * model.active_parameters + attention
    passes = (3 if setup.method == "full" else 2) + (1 if setup.checkpointing == "full" else 0)
    return forward * passes * tokens


def training_cost(
    model: Model, accelerator: Accelerator, setup: Setup, tokens: float, price_per_hour: float
) -> TrainingCost:
    """Hours and money for so many tokens, with the price of one accelerator. The intervals are those of the MFU.

    Raises InputError where the accelerator has no bf16 or the run does not fit into its memory.
    """
    if "bf16" not in accelerator.flops:
        raise InputError(f"{accelerator.name}: it has no bf16 arithmetic, so this training is not for it")
    need = training_memory(model, setup).total
    if need > accelerator.memory_bytes:
        raise InputError(
            f"{model.name} on {setup.accelerators} × {accelerator.name}: training takes {need / 2**30:.1f} GiB of "
            f"{accelerator.memory_bytes / 2**30:.1f} GiB; take more accelerators, adapters, or a smaller batch"
        )
    if tokens < 0 or price_per_hour < 0:
        raise InputError(f"tokens = {tokens}, price = {price_per_hour}: both are 0 or more")
    work = flops(model, setup, tokens)
    low, usual, high = (work / (setup.accelerators * accelerator.flops["bf16"] * mfu) / 3600 for mfu in MFU[::-1])
    rate = setup.accelerators * price_per_hour
    hours = Figure(usual, low, high, "analytic")
    return TrainingCost(work, setup.accelerators, hours, Figure(usual * rate, low * rate, high * rate, "analytic"))


def _activation_bytes(model: Model, setup: Setup) -> float:
    """All layers of one accelerator, and the logits (in float32) with what the head and the last norm keep."""
    tokens = setup.sequence * setup.batch
    layers = [
        (g.count, layer_activation_bytes(g, model.hidden, setup, attention_matrix=setup.checkpointing == "none"))
        for g in model.layers
    ]
    body = sum(count * kept for count, kept in layers)
    if setup.checkpointing == "full":  # the input of each layer, and one layer at a time
        body = 2 * tokens * model.hidden * model.depth + max((kept for _, kept in layers), default=0.0)
    return body + 4 * tokens * (model.hidden + model.vocabulary)


def _adapter_sides(group: LayerGroup, hidden: int) -> float:
    """Σ (m + n) over the dense matrices of one layer."""
    inner = 3 * hidden + group.dense_parameters / hidden if group.dense_parameters else 0.0
    if group.mixer == "attention":
        return inner + 4 * hidden + group.mixer_parameters / hidden
    if group.mixer == "none":
        return inner
    return inner + 2 * hidden + group.mixer_parameters / hidden  # one matrix in, one out


def _check(setup: Setup) -> None:
    for name in ("sequence", "batch", "accelerators", "rank"):
        if getattr(setup, name) < 1:
            raise InputError(f"{name} = {getattr(setup, name)}: at least 1")
    if setup.accelerators > MOST_ACCELERATORS:
        raise InputError(f"accelerators = {setup.accelerators}: at most {MOST_ACCELERATORS} are reckoned with here")
