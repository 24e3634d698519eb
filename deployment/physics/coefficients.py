"""The fitted numbers of the latency formulas: what each means, what it was believed to be, and what the data made it.

`TERMS` are positive constants of physics and engines. `OFFSETS` say by which *kind* of system a group of terms differs
(engine, disaggregation, latent attention, generation …): log factors, shrunk to 0, never one for a model. They depend
on nothing that a load or a bandwidth changes, so every formula stays monotone in those.

`coefficients.json` is data: written by `python -m deployment.physics.fitting`, with date, errors and what it rests on.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("coefficients.json")


class Prior(NamedTuple):
    """What a term was believed to be before the fit: a log-normal; `most` bounds it where physics does."""

    value: float
    spread: float
    """Standard deviation of its logarithm."""
    meaning: str
    most: float = math.inf


TERMS: dict[str, Prior] = {
    "weight_bandwidth": Prior(0.7, 0.3, "share of the bandwidth reached while weights are read", 1.0),
    "cache_bandwidth": Prior(0.7, 0.3, "share of the bandwidth reached while keys and values are read", 1.0),
    "decode_utilisation": Prior(0.4, 0.5, "share of 1 PFLOP/s reached by the layers in a step"),
    "prefill_utilisation": Prior(0.5, 0.4, "the same in a prompt"),
    "attention_utilisation": Prior(0.35, 0.5, "share of the bf16 peak reached by attention"),
    "peak_exponent": Prior(0.8, 0.15, "FLOP/s reached grow as this power of the peak: faster units starve more", 1.0),
    "layer": Prior(20e-6, 0.7, "seconds of launches a layer and step"),
    "moe_layer": Prior(20e-6, 0.7, "more for a layer with experts"),
    "latent_layer": Prior(15e-6, 0.7, "more for latent attention"),
    "state_layer": Prior(10e-6, 0.7, "more for a recurrence"),
    "step": Prior(3e-4, 0.7, "seconds a step, whatever the model: scheduling, sampling"),
    "all_reduce": Prior(6e-6, 0.7, "seconds of latency of an all-reduce"),
    "all_reduce_hop": Prior(2e-6, 0.7, "more for each doubling of the group"),
    "message": Prior(1.5, 0.5, "time of a message / its bytes over the link's bandwidth"),
    "network_hop": Prior(20e-6, 0.7, "more for an all-reduce between nodes"),
    "expert_hop": Prior(5e-6, 0.7, "seconds of an all-to-all for each doubling of the experts' group"),
    "dispatch": Prior(30e-6, 0.7, "seconds of dispatch and combine with attention data parallelism"),
    "sequence": Prior(10e-6, 0.7, "host's seconds a step for each sequence of a rank"),
    "interleave": Prior(0.8, 0.4, "share of a prompt's time that running sequences wait for it"),
    "burst": Prior(0.05, 0.4, "share of all prompts in flight that a request waits for in a closed loop"),
    "bunch": Prior(0.2, 0.5, "prompts that meet by chance: share of the root of those in flight"),
    "request": Prior(15e-3, 0.7, "seconds before the first token, whatever the prompt: HTTP, tokenising, scheduling"),
    "crowd": Prior(0.4e-3, 0.7, "more for each other request in flight"),
    "first_step": Prior(1.0, 0.5, "decoding steps before the first token"),
    "prompt_layer": Prior(60e-6, 0.7, "seconds of launches a layer and prompt"),
    "prompt_moe_layer": Prior(100e-6, 0.7, "more for a layer with experts"),
    "handover": Prior(50e-3, 0.9, "seconds from the prefill pool to the decode pool"),
    "transfer": Prior(1.0, 0.7, "time of the cache's transfer / its bytes over the network's bandwidth"),
    "sglang_workers": Prior(1.0, 0.5, "decode workers beyond the first at low load, where a row does not say"),
    "trtllm_workers": Prior(3.5, 0.5, "the same for TensorRT-LLM"),
    "crowded_workers": Prior(200.0, 0.7, "requests in flight at which half of those are gone"),
    "provision": Prior(1.5, 0.5, "prefill workers / what the load needs, where a row does not say"),
}
_ENGINES = ("vllm", "sglang", "trtllm")
_BY_ENGINE = ("sglang disaggregated", "trtllm disaggregated", "sglang latent", "trtllm latent")
_BY_AGE = ("vllm older", "sglang older", "trtllm older")
OFFSETS: dict[str, tuple[float, tuple[str, ...]]] = {
    "weights": (0.25, ("unpacked", "older", "fp4", "latent")),
    "step": (
        0.12,
        (
            *(*_ENGINES, "disaggregated", "latent", "older", "dp", "ep", "fp4", "bf16", "int4"),
            *("moe", "state", "window", "guessed", *_BY_ENGINE),
        ),
    ),
    "launch": (0.2, (*_ENGINES, "older", "disaggregated", "moe")),
    "sequence": (0.35, (*_ENGINES, "disaggregated", "latent", "dp")),
    "prompt": (
        0.26,
        (
            *(*_ENGINES, "latent", "older", "dp", "fp4", "bf16", "int4", "unpacked", "disaggregated", "moe"),
            *("state", "window", "sglang latent", "trtllm latent"),
        ),
    ),
    "interleave": (0.25, (*_ENGINES, "latent", "moe", "dp", "older", "fp4")),
    "burst": (0.5, (*_ENGINES, "disaggregated", "guessed", "latent", "dp", "older", *_BY_ENGINE[:2])),
    "request": (
        0.5,
        (
            *(*_ENGINES, "disaggregated", "guessed", "latent", "moe", "older", "dp", "window", "fp4"),
            *(*_BY_ENGINE, *_BY_AGE),
        ),
    ),
}
"""Factor → (standard deviation of each offset, features that it may depend on)."""
FEATURES = tuple(dict.fromkeys(feature for _, features in OFFSETS.values() for feature in features))


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Terms and offsets, and what is known of how well they predict."""

    terms: Mapping[str, float]
    offsets: Mapping[str, float]
    """`factor:feature` → log factor."""
    report: Mapping[str, Any]
    """Date, rows, errors out of fold, spreads of the intervals, systems in the fit."""

    def factors(self, features: Mapping[str, Any], nudged: str = "", by: float = 0.0) -> dict[str, Any]:
        """Every factor of `OFFSETS` for a system (floats) or for many (arrays (N,)) with these features.

        The logarithm of the factor `nudged` is larger by `by`: for derivatives.
        """
        return {name: math.e ** (self._log_factor(name, features) + by * (name == nudged)) for name in OFFSETS}

    def _log_factor(self, name: str, features: Mapping[str, Any]) -> Any:
        return sum(self.offsets[f"{name}:{feature}"] * features[feature] for feature in OFFSETS[name][1])


@cache
def shipped() -> Coefficients:
    """Those of `coefficients.json`."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return Coefficients(content["terms"], content["offsets"], content["report"])


@cache
def shipped_factors(kind: tuple[tuple[str, float], ...]) -> Mapping[str, Any]:
    """The shipped factors of a kind of system (its features): thousands of systems are of some dozens of kinds."""
    return shipped().factors(dict(kind))
