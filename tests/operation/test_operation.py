"""What Prefect's pages do, through the same REST API: deployments, forms, runs, decisions, cancellation."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from evaluation.report import read_report

pytestmark = pytest.mark.slow
ONE_PHASE = {"chain": ["cognate"]}


def artifacts(servers: Any, run: str) -> dict[str, dict[str, Any]]:
    body = {"artifacts": {"flow_run_id": {"any_": [run]}}}
    return {artifact["key"]: artifact for artifact in servers.call("POST", "/artifacts/filter", body)}


def test_deployments(servers: Any) -> None:
    forge, smoke, nightly = (servers.deployment(name) for name in ("forge", "forge-smoke", "smoke-nightly"))
    for deployment in (forge, smoke, nightly):
        assert deployment["entrypoint"] == "flows.forge_flow.forge"
        assert deployment["description"] and "forge" in deployment["tags"]
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert deployment["work_pool_name"] == "forge"
    assert nightly["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    assert nightly["schedules"][0]["schedule"]["timezone"] == "UTC"
    assert servers.call("GET", "/work_pools/forge")["concurrency_limit"] == 1


def test_nightly_schedule_shows_its_next_run(servers: Any) -> None:
    deployment = servers.deployment("smoke-nightly")["id"]
    body = {"deployments": {"id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"}
    servers.until(lambda: servers.call("POST", "/flow_runs/filter", body), 90)
    following = servers.call("POST", "/flow_runs/filter", body)[0]
    assert following["state_type"] == "SCHEDULED" and following["expected_start_time"][11:16] == "02:00"


def test_deploying_again_changes_nothing(servers: Any) -> None:
    names = ("forge", "forge-smoke", "smoke-nightly")
    before = [servers.deployment(name)["id"] for name in names]
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = {**os.environ, "PREFECT_API_URL": f"{servers.url}/api"}
    done = subprocess.run(command, cwd=servers.project, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [servers.deployment(name)["id"] for name in names] == before
    assert len(servers.call("POST", "/deployments/filter", {})) == len(names) + 3  # the planner's, two of distillation


def test_a_plan_is_made_by_its_deployment(servers: Any) -> None:
    request = {"models": ["Qwen/Qwen3-8B"], "accelerators": ["l40s", "h100-sxm"], "traffic": {"users": 50}}
    run = servers.create("recommend", "recommend", name="page", request=request)
    assert servers.wait(run)["state_name"] == "Completed"
    shown = artifacts(servers, run)
    assert "Qwen/Qwen3-8B" in shown["candidates"]["data"] and "## What" in shown["recommendation"]["data"]
    assert (servers.project / "checkpoints" / "page" / "kserve").is_dir()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cognate": {"trunk": {"steps": 0}}}, "minimum"),
        ({"cognate": {"trunk": {"stepz": 3}}}, "stepz"),
        ({"runner": "spark"}, "spark"),
        ({"chain": ["bake"]}, "bake"),
    ],
)
def test_wrong_value_is_refused_before_anything_runs(servers: Any, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        servers.create("forge-smoke", **changes)
    assert refused.value.response.status_code in (409, 422) and reason in refused.value.response.text


@pytest.mark.timeout(1800)
def test_a_run_is_visible_everywhere(servers: Any) -> None:
    run = servers.create("forge-smoke", run="whole")
    done = servers.wait(run)
    assert (done["state_type"], done["state_name"]) == ("COMPLETED", "RolledBack"), done["state"]
    shown = artifacts(servers, run)
    assert {"report", "gates-cognate", "gates-evomerge", "mlflow", "model", "forge-progress"} <= set(shown)
    assert shown["report"]["data"].startswith("# ") and float(shown["forge-progress"]["data"]) == 100
    client = MlflowClient(servers.mlflow_url)
    experiment = client.get_experiment_by_name("agent-forge").experiment_id
    parent = client.search_runs([experiment], f"tags.`prefect.flow_run_id` = '{run}'")[0]
    assert parent.info.status == "FINISHED" and parent.inputs.dataset_inputs
    assert parent.info.run_id in shown["mlflow"]["data"] and servers.mlflow_url in shown["mlflow"]["data"]
    assert any(name.startswith("system/") for name in parent.data.metrics)
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    pictures = {r.info.run_name: {f.path for f in client.list_artifacts(r.info.run_id)} for r in nested}
    assert {"loss.png", "matrix.png", "judgement.json"} <= pictures["cognate"]
    assert "evolution.png" in pictures["evomerge"]
    version = client.get_model_version_by_alias("forge-agent-smoke", "champion")
    assert version.run_id == parent.info.run_id and version.aliases == ["challenger", "champion"]
    report = read_report(servers.runs / "whole")
    assert report.agent is not None and version.tags["checkpoint.path"].endswith(report.agent.path)
    assert version.tags["prefect.flow_run_id"] == run and run in version.description
    assert version.tags["prefect.url"].startswith(servers.url)
    assert (
        shown["model"]["data"].endswith(f"#/models/forge-agent-smoke/versions/{version.version}")
        or version.version in shown["model"]["data"]
    )


@pytest.mark.parametrize(("decision", "name"), [("approve", "Completed"), ("reject", "Rejected")])
def test_a_person_decides(servers: Any, decision: str, name: str) -> None:
    model = f"judged-{decision}"
    asked = {"required": True}
    run = servers.create("forge-smoke", **ONE_PHASE, run=model, agent=model, approval=asked)
    servers.wait(run, {"PAUSED", "FAILED", "CRASHED", "COMPLETED"})
    state = servers.run(run)["state"]
    assert state["name"] == "Suspended", state
    keyset = state["state_details"]["run_input_keyset"]
    form = servers.call("GET", f"/flow_runs/{run}/input/{keyset['schema']}")
    form = json.loads(form) if isinstance(form, str) else form
    assert form["properties"]["decision"]["enum"] == ["approve", "reject"] and "comment" in form["properties"]
    wrong = servers.call("POST", f"/flow_runs/{run}/resume", {"run_input": {"decision": "maybe"}})
    assert wrong["status"] == "REJECT" and servers.run(run)["state_name"] == "Suspended"
    client = MlflowClient(servers.mlflow_url)
    assert client.get_registered_model(model).aliases == {"challenger": "1"}
    servers.call("POST", f"/flow_runs/{run}/resume", {"run_input": {"decision": decision, "comment": "seen"}})
    servers.until(lambda: servers.run(run)["state_name"] != "Suspended", 10)
    assert servers.wait(run)["state_name"] == name
    tags = client.get_model_version(model, "1").tags
    assert (tags["approval.decision"], tags["approval.comment"]) == (decision, "seen")
    assert ("champion" in client.get_registered_model(model).aliases) == (decision == "approve")
    assert "seen" in artifacts(servers, run)["approval"]["data"]


def test_cancelled_run_stops_and_resumes(servers: Any) -> None:
    run = servers.create("forge-smoke", **ONE_PHASE, run="cancelled", reuse=False)
    work = servers.runs / "cancelled" / "cognate.work"
    servers.until(work.exists, 120)
    process = servers.engine()
    servers.call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    assert servers.wait(run)["state_name"] == "Cancelled"
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    client = MlflowClient(servers.mlflow_url)
    where = [client.get_experiment_by_name("agent-forge").experiment_id]
    tracked = client.search_runs(where, f"tags.`prefect.flow_run_id` = '{run}'")
    assert tracked[0].info.status == "KILLED"
    servers.retry(run)
    servers.until(lambda: servers.run(run)["state_name"] != "AwaitingRetry", 30)
    assert servers.wait(run)["state_name"] == "Completed"


def test_second_one_in_the_same_folder_is_refused(servers: Any) -> None:
    command = [sys.executable, "-m", "flows.cli", "up", "--port", "1", "--mlflow-port", "2"]
    done = subprocess.run(command, cwd=servers.project, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "is running here already" in done.stderr and len(done.stderr.splitlines()) == 1


def test_webhook_that_is_no_address_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "up", "--notify", "hooks.example/secret"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "not an http:// or https:// address" in done.stderr
    assert "secret" not in done.stderr and list(tmp_path.iterdir()) == []


def test_nothing_to_deploy_here(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "up"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "run `forge up` in the project's folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_taken_port_is_named(servers: Any, tmp_path: Path) -> None:
    shutil.copy(servers.project / "prefect.yaml", tmp_path)
    command = [sys.executable, "-m", "flows.cli", "up", "--port", str(servers.port)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"port {servers.port} is in use by " in done.stderr and "choose --port N" in done.stderr
