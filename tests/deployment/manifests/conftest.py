"""Candidates of many shapes, with figures that a reader can check."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from deployment.hardware import Accelerator, Offer
from deployment.manifests.plan import Plan, make_plan
from deployment.model import LayerGroup, Model
from deployment.planning.candidate import Candidate
from deployment.serving import Estimate, Figure, Load, MemoryPlan, Serving

GIB = 2**30
MODEL = Model(
    name="Qwen/Qwen3-32B",
    family="qwen3",
    layers=(LayerGroup(64, "attention", 94_371_840, 393_216_000, heads=64, kv_heads=8, head_dim=128),),
    hidden=5120,
    vocabulary=151_936,
    context=40_960,
    embedding_parameters=1_555_824_640,
    licence="apache-2.0",
    source="huggingface.co/Qwen/Qwen3-32B",
)
H100 = Accelerator(
    "h100-sxm", "NVIDIA", int(79.19 * GIB), 3.35e12, {"bf16": 9.9e14, "fp8": 1.98e15}, 4.5e11, 5e10, 8, 700, "datasheet"
)
OFFER = Offer(
    "aws", "p5.48xlarge", "us-east-1", "h100-sxm", 8, 55.04, "USD", False, 192, 2048 * GIB, "2026-01-01", "price list"
)


def figure(value: float) -> Figure:
    return Figure(value, 0.8 * value, 1.25 * value, "fitted")


ESTIMATE = Estimate(
    memory=MemoryPlan(72 * GIB, 33 * GIB, 2 * GIB, 2 * GIB, 35 * GIB, 1 * GIB),
    batch=14.2,
    ttft=figure(0.11),
    tpot=figure(0.021),
    throughput=figure(640.0),
    ttft_percentiles={50: figure(0.1), 95: figure(0.2)},
    tpot_percentiles={50: figure(0.02), 95: figure(0.025)},
    floor_tpot=0.011,
    parts={"weights": 0.01, "kv": 0.002},
)
SHAPES: dict[str, dict[str, Any]] = {
    "one": {},
    "tensor": {"tp": 2, "precision": "fp8", "kv_bits": 8, "max_context": 8192},
    "pipeline": {"tp": 4, "pp": 2, "utilisation": 0.9},
    "data": {"tp": 2, "dp": 4, "ep": 8},
    "two nodes": {"tp": 8, "pp": 2, "max_context": 32768},
    "two nodes of data": {"dp": 16, "ep": 16},
    "int4": {"precision": "int4", "prefix_cached": 0.5},
    "speculative": {"tp": 2, "precision": "bf16", "draft_tokens": 4},
    "tgi": {"engine": "tgi", "tp": 2, "precision": "fp8", "kv_bits": 8, "max_context": 8192},
}

Make = Callable[..., Candidate]


def _make(shape: str = "one", **changes: Any) -> Candidate:
    whole = Candidate(
        model=MODEL,
        accelerator=H100,
        offer=OFFER,
        serving=Serving(**SHAPES[shape]),
        load=Load(1024, 256, concurrency=16),
        replicas=2,
        instances=1,
        estimate=ESTIMATE,
        ttft_p95=0.2,
        tpot_p95=0.025,
        e2e_p95=6.6,
        cost_per_hour=55.04,
        cost_per_million_tokens=12.5,
        notes=("a note",),
    )
    return replace(whole, **changes)


@pytest.fixture
def make() -> Make:
    """A candidate of a named shape; keywords change its fields."""
    return _make


@pytest.fixture(params=sorted(SHAPES))
def plan(request: pytest.FixtureRequest) -> Plan:
    """The plan of every shape in turn."""
    return make_plan(_make(request.param))


@pytest.fixture
def agent(make: Make) -> Candidate:
    """A forge's agent on CPUs."""
    model = replace(MODEL, name="checkpoints/laptop/adas", family="titans_mag", source="report.json")
    offer = replace(OFFER, instance="c7i.xlarge", accelerator="cpu", count=0, vcpus=4, memory_bytes=8 * GIB)
    return make(model=model, accelerator=None, offer=offer)
