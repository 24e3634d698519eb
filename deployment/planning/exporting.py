"""A recommendation as plain data for JSON: names instead of whole models, milliseconds where people read them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from deployment.planning.candidate import Candidate, Recommendation
from deployment.planning.nearest import kinds
from deployment.planning.what_if import Alternative
from deployment.serving import Figure

GIB = 2.0**30
TOP = 50
"""Candidates that are told in full."""


def recommendation_data(recommendation: Recommendation, top: int = TOP, every: bool = False) -> dict[str, Any]:
    """The answer: chosen, the `top` best candidates, the front, rejections by constraint.

    With `every` all rejections, each with its numbers, beside their counts: a whole atlas has tens of thousands.
    """
    chosen = recommendation.chosen
    listed = {"rejections": [asdict(one) for one in recommendation.rejections]} if every else {}
    return {
        "request": recommendation.request.model_dump(mode="json"),
        "workload": recommendation.workload.model_dump(mode="json"),
        "chosen": candidate_data(chosen) if chosen else None,
        "benchmark": recommendation.benchmark or None,
        "candidates_in_all": len(recommendation.candidates),
        "candidates": [candidate_data(one) for one in recommendation.candidates[:top]],
        "pareto": [one.system for one in recommendation.pareto],
        "alternatives": [candidate_data(one) for one in recommendation.alternatives],
        "nearest": [asdict(one) for one in recommendation.nearest],
        "rejected": [asdict(one) for one in kinds(recommendation.rejections)],
        **listed,
        "notes": list(recommendation.notes),
    }


def candidate_data(candidate: Candidate) -> dict[str, Any]:
    """One candidate: the system, what is rented, latencies with their intervals, memory, cost, score."""
    estimate = candidate.estimate
    return {
        "system": candidate.system,
        "model": candidate.model.name,
        "accelerator": candidate.accelerator.name if candidate.accelerator else None,
        "offer": asdict(candidate.offer),
        "serving": asdict(candidate.serving),
        "load": asdict(candidate.load),
        "replicas": candidate.replicas,
        "instances": candidate.instances,
        "ttft_p95_ms": candidate.ttft_p95 * 1e3,
        "tpot_p95_ms": candidate.tpot_p95 * 1e3,
        "e2e_p95_s": candidate.e2e_p95,
        "estimate": {
            "ttft_ms": _milliseconds(estimate.ttft),
            "tpot_ms": _milliseconds(estimate.tpot),
            "ttft_percentiles_ms": {str(p): _milliseconds(f) for p, f in estimate.ttft_percentiles.items()},
            "tpot_percentiles_ms": {str(p): _milliseconds(f) for p, f in estimate.tpot_percentiles.items()},
            "tokens_per_s": asdict(estimate.throughput),
            "floor_tpot_ms": estimate.floor_tpot * 1e3,
            "batch": estimate.batch,
            "parts_ms": {name: seconds * 1e3 for name, seconds in estimate.parts.items()},
            "memory_gib": {name: size / GIB for name, size in asdict(estimate.memory).items()},
        },
        "cost_per_hour": candidate.cost_per_hour,
        "cost_per_month": candidate.cost_per_month,
        "cost_per_million_tokens": candidate.cost_per_million_tokens,
        "quality": asdict(candidate.quality) if candidate.quality else None,
        "score": candidate.score,
        "score_terms": dict(candidate.score_terms),
        "notes": list(candidate.notes),
    }


def what_if_data(alternatives: Sequence[Alternative]) -> list[dict[str, Any]]:
    """Each alternative's change and what it comes to."""
    return [
        {
            "change": one.name,
            "chosen": candidate_data(one.recommendation.chosen) if one.recommendation.chosen else None,
            "nearest": [asdict(miss) for miss in one.recommendation.nearest],
            "candidates": len(one.recommendation.candidates),
        }
        for one in alternatives
    ]


def _milliseconds(figure: Figure) -> dict[str, Any]:
    """A figure in seconds, in milliseconds."""
    values = {name: getattr(figure, name) * 1e3 for name in ("value", "low", "high")}
    return {**values, "provenance": figure.provenance}
