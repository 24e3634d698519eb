"""The plan of a run's agent, or of any request: files, pictures, and what report, MLflow and Prefect show of it.

    <run>/plan/recommendation.md  plan.json  vllm.sh  kubernetes/…  kserve/…   (deployment/manifests/bundle.py)
    <run>/plan/memory.png  latency-throughput.png  cost-latency.png

Where nothing meets the request there is no folder, and the summary says what comes nearest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployment.planning.request import Request

if TYPE_CHECKING:
    from deployment.planning.candidate import Candidate, Recommendation

SHOWN = 10
"""Rows of the table in Prefect; the files have all."""


@dataclass(frozen=True)
class Planned:
    """What was answered and written."""

    recommendation: "Recommendation"
    folder: Path | None
    """Where the manifests are; None: nothing meets the request."""
    summary: dict[str, Any]
    """For `report.json`."""
    markdown: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The best candidates, for a table."""
        return [_row(one) for one in self.recommendation.candidates[:SHOWN]]


def plan(request: Request, out: Path, report: Path | None = None) -> Planned:
    """Answer, for the agent of a `report` instead of the atlas, and write everything that deploys the choice to `out`.

    Raises `InputError` for a request that makes no sense, and `StorageError` when `out` holds something else.
    """
    from deployment.manifests import bundle
    from deployment.planning.catalogue import catalogue
    from deployment.planning.own_agent import own_agent
    from deployment.planning.recommend import recommend
    from deployment.plots import pictures

    agent = None if report is None else own_agent(report)
    answer = recommend(request, catalogue(request, agent))
    if answer.chosen is None:
        lines = [f"- {miss}" for miss in answer.nearest]
        text = "\n".join(["Nothing meets all constraints; the nearest misses:", "", *lines, ""])
        return Planned(answer, None, _summary(answer), text)
    bundle.write(answer, out)
    for name, figure in pictures(answer).items():
        figure.savefig(out / name, dpi=120)
    return Planned(answer, out, _summary(answer), (out / "recommendation.md").read_text("utf-8"))


def _summary(answer: "Recommendation") -> dict[str, Any]:
    """Few figures, each with its unit in its name."""
    chosen = answer.chosen
    counts = {"candidates": len(answer.candidates), "rejected": len(answer.rejections)}
    if chosen is None:
        return {"system": None, "nearest": [str(miss) for miss in answer.nearest], **counts}
    return {**_row(chosen), **counts}


def _row(one: "Candidate") -> dict[str, Any]:
    return {
        "system": one.system,
        "offer": f"{one.instances} × {one.offer.instance} at {one.offer.cloud}, {one.offer.region}",
        "replicas": one.replicas,
        "usd_per_month": round(one.cost_per_month, 2),
        "usd_per_million_tokens": round(one.cost_per_million_tokens, 4),
        "ttft_p95_ms": round(one.ttft_p95 * 1e3, 1),
        "tpot_p95_ms": round(one.tpot_p95 * 1e3, 2),
        "quality": None if one.quality is None else f"{one.quality.benchmark} {one.quality.score:.1f} %",
        "latency_is": one.estimate.tpot.provenance,
    }


def metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The summary's figures, for MLflow."""
    return {f"plan/{key}": float(value) for key, value in summary.items() if isinstance(value, int | float)}
