"""Bytes of weights: how many bits each takes, what one accelerator holds, and what one decoding step reads.

Weights = Σ parameters × stored bits, sharded. Embeddings, head and norms stay in bf16
whatever the layers are in, but for checkpoints that say otherwise. The
formats' own bits with their scales: NVFP4 4 + 8/16 = 4.5 (fp8 scale per 16), MXFP4 4 + 8/32 = 4.25 (e8m0 scale per
32; OCP Microscaling spec 1.0), AWQ and GPTQ in groups of 128 4 + (16 + 4)/128 ≈ 4.16 (scale and zero point).

A mixture of experts holds all its experts but reads those that some token of the batch chose: with k of E chosen
evenly and independently, `E · (1 − (1 − k/E)^B)` of them in expectation.

The PRDs' `params × bits / 8 × overhead` takes a factor for what is a sum: activation and the CUDA context do not grow
with the weights (`deployment/physics/memory.py` adds them per accelerator).
"""

import math
from functools import lru_cache

from deployment.model import LayerGroup, Model
from deployment.serving import Serving
from phases.errors import InputError

PRECISION_BITS = {"bf16": 16.0, "fp8": 8.0, "int8": 8.0, "int4": 4.15625, "nvfp4": 4.5, "mxfp4": 4.25}
REMEMBERED = 1 << 14
"""Answers that are kept: a sweep asks the same of a model and a way of serving for every accelerator."""


def layer_bits(model: Model, precision: str = "stored") -> float:
    """Bits per weight of the layers, on average over all of them.

    Raises InputError for a precision that is not known.
    """
    check_precision(precision)
    if precision != "stored":
        return PRECISION_BITS[precision]
    total = weighted = 0.0
    for group in model.layers:
        for parameters, bits in _parts(model, group, "stored"):
            total += group.count * parameters
            weighted += group.count * parameters * bits
    return weighted / total if total else model.stored_bits


@lru_cache(REMEMBERED)
def bytes_per_accelerator(model: Model, serving: Serving) -> float:
    """Weights on one accelerator of the replica, bytes; under pipeline parallelism on the fullest one.

    Tensor parallelism divides all but the latent down-projections, and keys' and values' projections no further than
    there are KV heads. Experts are divided over tp × dp; everything else is held by each of the dp copies.
    """
    body = 0.0
    for group in model.layers:
        mixer, dense, expert = _parts(model, group, serving.precision)
        body += group.count * _mixer_share(model, group, serving) * mixer[1] / 8
        body += group.count * dense[0] / serving.tp * dense[1] / 8
        body += group.count * expert[0] / (serving.tp * serving.dp) * expert[1] / 8
    return body * _stage_share(model, serving.pp) + _ends_bytes(model, serving)


@lru_cache(REMEMBERED)
def touched_bytes(model: Model, serving: Serving, batch: float) -> float:
    """Bytes of weights that one decoding step of `batch` sequences (of the whole replica) reads on one accelerator.

    Under pipeline parallelism: of its own stage. The input embeddings count in full, as in the usual floor
    `checkpoint bytes / bandwidth`; untied, they are at most a few per cent more than the rows that are looked up.
    Raises InputError for a batch below one sequence.
    """
    if batch <= 0:
        raise InputError(f"batch = {batch}: a step decodes more than 0 sequences")
    body = 0.0
    for group in model.layers:
        mixer, dense, expert = _parts(model, group, serving.precision)
        body += group.count * _mixer_share(model, group, serving) * mixer[1] / 8
        body += group.count * dense[0] / serving.tp * dense[1] / 8
        read = expert[0] * touched_share(group, batch)
        body += group.count * read / (serving.tp * serving.dp) * expert[1] / 8
    embeddings = model.embedding_parameters * _embedding_bits(model, serving) / 8 / serving.tp
    return (body + embeddings) / serving.pp


def touched_share(group: LayerGroup, batch: float) -> float:
    """Expected share of a layer's routed experts that a step of `batch` tokens reads: 1 − (1 − k/E)^B."""
    if group.experts == 0:
        return 0.0
    batch = max(1.0, batch)  # a step that runs has one token at least
    return 1.0 - math.pow(1.0 - group.active_experts / group.experts, batch)


def checkpoint_bytes(model: Model) -> float:
    """Size of the published checkpoint, bytes."""
    return bytes_per_accelerator(model, Serving())


def as_in_the_prd(model: Model, precision: str, overhead: float = 1.2) -> float:
    """The PRDs' `parameters × bits / 8 × overhead`, to show the difference; nothing is computed with it."""
    return model.parameters * layer_bits(model, precision) / 8 * overhead


def check_precision(precision: str) -> None:
    """Raises InputError for a precision that is not known."""
    if precision != "stored" and precision not in PRECISION_BITS:
        known = ", ".join(["stored", *PRECISION_BITS])
        raise InputError(f"precision = {precision!r}: weights are kept as one of {known}")


def _parts(model: Model, group: LayerGroup, precision: str) -> tuple[tuple[float, float], ...]:
    """(parameters, bits) of one layer's mixer, dense MLP and routed experts, all of them."""
    numbers = (group.mixer_parameters, group.dense_parameters, group.experts * group.expert_parameters)
    if precision != "stored":
        check_precision(precision)
        return tuple((number, PRECISION_BITS[precision]) for number in numbers)
    own = (group.mixer_bits, group.dense_bits, group.expert_bits)
    return tuple(
        (number, model.stored_bits if bits is None else bits) for number, bits in zip(numbers, own, strict=True)
    )


def _mixer_share(model: Model, group: LayerGroup, serving: Serving) -> float:
    """Parameters of one layer's mixer on one accelerator."""
    divided = group.mixer_parameters - group.replicated_parameters
    share = divided / serving.tp + group.replicated_parameters
    if group.mixer == "attention" and serving.tp > group.kv_heads > 0 and not group.shared_cache:
        one_head = model.hidden * (group.head_dim + (group.value_dim or group.head_dim))
        share += one_head * (1 - group.kv_heads / serving.tp)
    return share


def _stage_share(model: Model, pp: int) -> float:
    """Share of the layers on the fullest stage of the pipeline."""
    return math.ceil(model.depth / pp) / model.depth if model.depth else 0.0


def _ends_bytes(model: Model, serving: Serving) -> float:
    """Embeddings, head and what is loaded besides; with a pipeline, the larger of the two ends."""
    embeddings = float(model.embedding_parameters)
    table = model.vocabulary * model.hidden
    if serving.pp > 1 and embeddings >= 2 * table:  # not tied: the tables are on different stages
        embeddings -= table
    return (embeddings * _embedding_bits(model, serving) + model.other_parameters * 16) / 8 / serving.tp


def _embedding_bits(model: Model, serving: Serving) -> float:
    return model.embedding_bits if serving.precision == "stored" else 16.0
