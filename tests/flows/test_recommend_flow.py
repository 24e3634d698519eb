"""The planner as a flow: what it writes and shows, alone and at the end of a run."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client

from deployment.atlas import own
from deployment.planning.request import Request
from evaluation.report import Report
from flows.parameters import ForgeConfig
from flows.planning import metrics, plan
from flows.recommend_flow import RecommendConfig, recommend
from phases.errors import InputError

ONE = {"models": ["Qwen/Qwen3-8B"], "accelerators": ["l40s", "h100-sxm"], "traffic": {"users": 50}}
PICTURES = {"memory.png", "latency-throughput.png", "cost-latency.png"}


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("prefect_server")
def test_a_plan_of_the_atlas(runs: Path) -> None:
    config = RecommendConfig.parse({"name": "p", "out": str(runs), "request": ONE}, "test")
    summary = recommend(config)
    assert "Qwen/Qwen3-8B" in summary["system"] and summary["usd_per_month"] > 0
    made = names(runs / "p")
    assert {"recommendation.md", "plan.json", "vllm.sh", "kserve/inference-service.yaml", *PICTURES} <= made
    with get_client(sync_client=True) as client:
        shown = {a.key: a.data for a in client.read_latest_artifacts(limit=200)}
    assert json.loads(str(shown["candidates"]))[0]["system"] == summary["system"]
    assert "## What" in str(shown["recommendation"])
    client = MlflowClient(f"sqlite:///{runs.resolve()}/mlflow.db")
    experiment = client.get_experiment_by_name("agent-forge")
    assert experiment is not None
    run = client.search_runs([experiment.experiment_id], "attributes.run_name = 'p'")[0]
    assert run.info.status == "FINISHED" and run.data.metrics["plan/usd_per_month"] == summary["usd_per_month"]
    assert {"plan/plan.json", "plan/memory.png"} <= {f.path for f in client.list_artifacts(run.info.run_id, "plan")}


def test_a_run_ends_with_the_plan_of_its_agent(done: Report, original: ForgeConfig) -> None:
    told = done.recommendation
    assert told is not None and "candidates" in told
    written = json.loads((original.folder / "report.json").read_text())["recommendation"]
    assert written == told
    assert (original.folder / "plan" / "recommendation.md").is_file() == (told["system"] is not None)
    entered = own.models(original.out / "atlas.json")
    assert [model.name for model in entered] == [done.agent.packed] if done.agent else False


def test_the_same_request_gives_the_same_files(tmp_path: Path) -> None:
    request = Request.parse(ONE, "test")
    for name in ("a", "b"):
        plan(request, tmp_path / name)
    texts = [n for n in names(tmp_path / "a") if not n.endswith(".png")]
    assert texts and all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in texts)


def test_nothing_that_meets_the_request_is_an_answer(tmp_path: Path) -> None:
    planned = plan(Request.parse({**ONE, "budget_per_month": 1.0}, "test"), tmp_path / "a")
    assert planned.folder is None and not (tmp_path / "a").exists()
    assert planned.summary["system"] is None and "budget" in str(planned.summary["nearest"])
    assert "nearest misses" in planned.markdown and planned.rows == [] and "plan/candidates" in metrics(planned.summary)


def test_a_report_without_an_agent(tmp_path: Path, original: ForgeConfig) -> None:
    report: dict[str, Any] = json.loads((original.folder / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**report, "agent": None}))
    with pytest.raises(InputError, match="reports no agent"):
        plan(Request(), tmp_path / "plan", tmp_path)
