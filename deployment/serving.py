"""What is asked of the physics (how a model is served, under what load) and what it answers, with intervals."""

from dataclasses import dataclass, field
from typing import Literal

Engine = Literal["vllm", "sglang", "trtllm", "tgi", "llama.cpp", "forge"]
"""`forge`: our own `forge serve`, which answers one request at a time on CPUs."""
Precision = Literal["bf16", "fp8", "int8", "int4", "nvfp4", "mxfp4", "stored"]
"""Of the weights of the layers; embeddings, head, norms and routers stay bf16. `stored`: as published."""
Provenance = Literal["measured", "fitted", "analytic"]


@dataclass(frozen=True, slots=True)
class Serving:
    """One replica: an engine on `tp × pp × dp` accelerators."""

    engine: Engine = "vllm"
    version: str = ""
    """Of the engine; empty: the newest that the facts know."""
    precision: Precision = "stored"
    kv_bits: int = 16
    tp: int = 1
    pp: int = 1
    dp: int = 1
    """Attention data parallelism: so many copies of attention and KV, experts shared over all."""
    ep: int = 1
    utilisation: float | None = None
    """Share of the memory that the engine takes; None: the version's own default."""
    max_context: int | None = None
    """Longest sequence that is admitted (`max-model-len`); None: the model's own."""
    prefix_cached: float = 0.0
    """Share of the prompt that the prefix cache holds."""
    draft_tokens: int = 0
    """Speculative tokens a step; 0: off."""
    acceptance: float = 0.7
    """Probability that a draft token is accepted."""

    @property
    def accelerators(self) -> int:
        """Accelerators of one replica."""
        return self.tp * self.pp * self.dp


@dataclass(frozen=True, slots=True)
class Load:
    """What reaches one replica. Either so many requests are always in flight, or so many arrive a second."""

    prompt_tokens: int
    output_tokens: int
    concurrency: float | None = None
    """Closed loop: requests in flight."""
    rate: float | None = None
    """Open loop: requests per second (Poisson)."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number: value, 80 % interval, and where it comes from."""

    value: float
    low: float
    high: float
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Memory of one accelerator, bytes."""

    usable: float
    """What the engine takes: utilisation × memory."""
    weights: float
    activation: float
    non_torch: float
    kv_pool: float
    """What is left for keys and values; negative: does not fit."""
    kv_per_sequence: float
    """At the longest sequence admitted, on this accelerator."""

    @property
    def fits(self) -> bool:
        """One sequence of full length has room."""
        return self.kv_pool >= self.kv_per_sequence


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the physics says of one replica under one load. Times in seconds."""

    memory: MemoryPlan
    batch: float
    """Sequences decoded together, on average."""
    ttft: Figure
    """Time to the first token, mean, queueing included."""
    tpot: Figure
    """Time per output token after the first: (end-to-end − TTFT) / (tokens − 1), mean."""
    throughput: Figure
    """Output tokens per second of the replica."""
    ttft_percentiles: dict[int, Figure] = field(default_factory=dict)
    """50, 95, 99."""
    tpot_percentiles: dict[int, Figure] = field(default_factory=dict)
    floor_tpot: float = 0.0
    """Bytes that one step must read / bandwidth: no prediction is below it."""
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds of one decoding step by term (weights, kv, compute, communication, launch, …)."""
    notes: tuple[str, ...] = ()
