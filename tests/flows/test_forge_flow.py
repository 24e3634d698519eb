"""The flow from data to report on a temporary Prefect server: what it leaves, skips, keeps and refuses."""

import json
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import FlowRunSort
from transformers import AutoModelForCausalLM

from evaluation.report import Report, read_report
from flows.approval_config import ApprovalConfig
from flows.chain import CHAIN
from flows.forge_flow import forge
from flows.parameters import ForgeConfig
from phases.checkpoint import open_checkpoint
from phases.errors import GateFailed, InputError, StorageError

pytestmark = pytest.mark.usefixtures("prefect_server")


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every checkpoint file with its inode and time of change: what was not touched is equal."""
    below = [p for p in folder.rglob("*") if p.is_file() and set(CHAIN) & set(p.parts)]
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in below}


def digests(report: Report) -> dict[str, str]:
    return {phase.phase: phase.checkpoint.digest for phase in report.phases if phase.checkpoint}


def test_whole_chain(done: Report, original: ForgeConfig) -> None:
    assert [(phase.phase, phase.status) for phase in done.phases] == [
        ("cognate", "passed"),
        ("evomerge", "rolled_back"),
        ("quiet_star", "rolled_back"),
        ("bitnet", "passed"),
        ("forge", "rolled_back"),  # four steps: the control, given what looking at validation costs, has many more
        ("baking", "rolled_back"),  # nobody learns to call a tool in three steps
        ("adas", "rolled_back"),  # no design answers for a model that knows nothing
        ("compression", "passed"),  # there is text to retain
    ]
    assert done.agent is not None and done.agent.latency_ms_per_token_p50
    # The agent is what people get: the compressed file.
    assert Path(done.agent.path) == original.folder / "compression"
    assert done.agent.packed == f"{done.agent.path}/siblings/agent"
    assert done.agent.ratio_vs_fp32 > 2 and done.agent.parameters == done.phases[-1].parameters
    names = {path.name for path in original.folder.iterdir()}
    assert {"run.json", "report.json", "report.md", "size-and-quality.png", "data", "agent", *CHAIN} <= names
    assert "smaller than float32" in (original.folder / "agent" / "README.md").read_text()
    assert not [name for name in names if name.endswith((".work", ".tmp"))]
    assert AutoModelForCausalLM.from_pretrained(done.agent.path).config.num_hidden_layers == 2


def test_rerun_skips_what_is_done(copy: ForgeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    before, done = files(copy.folder), read_report(copy.folder)
    capsys.readouterr()
    forge(copy)
    said = capsys.readouterr().err
    assert "cognate: done before, skipped" in said and "evomerge: done before, skipped" in said
    assert files(copy.folder) == before
    again = read_report(copy.folder)
    assert [phase.gates for phase in again.phases] == [phase.gates for phase in done.phases]
    assert [phase.seconds for phase in again.phases] == [phase.seconds for phase in done.phases]
    assert again.started == done.started


def test_lost_result_is_made_again_with_the_same_digest(copy: ForgeConfig) -> None:
    done = read_report(copy.folder)
    shutil.rmtree(copy.folder / "cognate")
    forge(copy)
    assert digests(read_report(copy.folder)) == digests(done)


def test_lost_prefect_results_cost_nothing(copy: ForgeConfig) -> None:
    before = files(copy.folder)
    shutil.rmtree(copy.folder / ".prefect")
    forge(copy)
    assert files(copy.folder) == before


@pytest.mark.slow
def test_same_seed_same_digests_in_every_phase(done: Report, original: ForgeConfig, runs: Path, lenient: None) -> None:
    # In a folder without runs: nothing can be taken from another.
    second = original.model_copy(update={"run": "u", "out": runs})
    forge(second)
    assert digests(read_report(second.folder)) == digests(done)


def test_same_seed_same_digests(short: ForgeConfig, tiny: ForgeConfig, lenient: None) -> None:
    forge(tiny)
    assert digests(read_report(tiny.folder)) == digests(read_report(short.folder))


def test_seed_changes_the_result(copy: ForgeConfig) -> None:
    done = read_report(copy.folder)
    values = copy.model_dump(mode="json") | {"run": "u", "seed": 1}
    for name in ("data", *CHAIN, "evaluation"):
        del values[name]["seed"]
    second = ForgeConfig.parse(values, "test")
    forge(second)
    assert digests(read_report(second.folder))["cognate"] != digests(done)["cognate"]


def test_merge_that_beats_nothing_is_rolled_back(done: Report, original: ForgeConfig) -> None:
    kept = done.phases[1].checkpoint
    search = json.loads((original.folder / "evomerge" / "search.json").read_text())
    best = max(search["names"][1:], key=lambda name: search["controls"][name]["fitness"])
    assert kept is not None and Path(kept.path) == original.folder / "cognate" / "siblings" / best


def test_failed_gate_stops_the_chain_and_says_so(tiny: ForgeConfig, strict: None) -> None:
    with pytest.raises(GateFailed, match="cognate: gates not met: impossible"):
        forge(tiny)
    report = read_report(tiny.folder)
    assert [phase.status for phase in report.phases] == ["failed", *["skipped"] * 2] and report.agent is None
    assert "failed" in (tiny.folder / "report.md").read_text()
    assert not (tiny.folder / "evomerge").exists()


def test_retry_uses_the_next_seed_once(tiny: ForgeConfig, strict: None) -> None:
    cognate = tiny.cognate.model_copy(update={"on_fail": "retry"})
    with pytest.raises(GateFailed):
        forge(tiny.model_copy(update={"cognate": cognate}))
    seeds = [open_checkpoint(tiny.folder / name).manifest["seed"] for name in ("cognate", "cognate.retry")]
    assert seeds == [0, 1] and not (tiny.folder / "cognate.retry.retry").exists()
    shown = read_report(tiny.folder).phases[0].checkpoint
    assert shown is not None and Path(shown.path).name == "cognate.retry"


def test_taken_name(copy: ForgeConfig) -> None:
    done = read_report(copy.folder)
    other = copy.model_copy(update={"seed": 9})
    with pytest.raises(StorageError, match="taken by another config.*seed"):
        forge(other)
    assert read_report(copy.folder) == done


def test_tracking_has_a_parent_run_and_one_for_each_phase(done: Report, original: ForgeConfig) -> None:
    runs = tracked(original)
    parent, phases = runs[0], {run.data.tags["forge.phase"]: run for run in runs[1:]}
    assert set(phases) == set(CHAIN) and all(r.info.status == "FINISHED" for r in runs)
    assert all(r.data.tags["mlflow.parentRunId"] == parent.info.run_id for r in runs[1:])
    assert parent.data.params["cognate.trunk.steps"] == "3" and parent.data.tags["prefect.flow_run_id"]
    assert phases["cognate"].data.tags["checkpoint.digest"] == digests(done)["cognate"]
    assert phases["cognate"].data.metrics["gate/finite"] == 1.0 and "trunk/loss" in phases["cognate"].data.metrics
    assert parent.inputs.dataset_inputs[0].dataset.digest in parent.data.tags["data.digest"]


def test_tracking_keeps_pictures_and_report(done: Report, original: ForgeConfig) -> None:
    client = MlflowClient(f"sqlite:///{original.out.resolve()}/mlflow.db")
    names = [{a.path for a in client.list_artifacts(run.info.run_id)} for run in tracked(original)]
    assert names[0] == {"report.md", "agent", "plan"}
    assert {"loss.png", "matrix.png", "judgement.json"} in names
    assert {"evolution.png", "matrix.png", "judgement.json"} in names
    common = {"loss.png", "matrix.png", "judgement.json"}
    assert common | {"thoughts.png", "thought_length.png"} in names
    assert common | {"codes.png", "scales.png", "size.png"} in names


def test_resumed_run_goes_on_in_the_same_tracked_runs(original: ForgeConfig) -> None:
    before = {run.info.run_id for run in tracked(original)}
    forge(original)
    assert {run.info.run_id for run in tracked(original)} == before


def tracked(config: ForgeConfig) -> list[Any]:
    """The parent run, then the nested ones."""
    client = MlflowClient(f"sqlite:///{config.out.resolve()}/mlflow.db")
    experiment = client.get_experiment_by_name("agent-forge")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return sorted(runs, key=lambda run: "mlflow.parentRunId" in run.data.tags)


def test_dead_tracking_server_does_not_cost_the_run(
    tiny: ForgeConfig, lenient: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    forge(tiny)
    assert capsys.readouterr().err.count("tracking stopped, the run goes on without it") == 1
    assert read_report(tiny.folder).agent is not None


def test_prefect_shows_tasks_and_artifacts(done: Report) -> None:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(limit=200)
        names = {task.name for task in client.read_task_runs(limit=200)}
    assert {"gates-cognate", "gates-evomerge", "report", "forge-progress"} <= {a.key for a in found}
    assert {"data", "cognate", "cognate gate", "evomerge", "evomerge gate"} <= names


def test_second_run_of_a_phase_is_cached_in_prefect(copy: ForgeConfig) -> None:
    forge(copy)
    with get_client(sync_client=True) as client:
        states = {task.state_name for task in client.read_task_runs(limit=200) if task.name == "cognate"}
    assert "Cached" in states


def states(gates: int) -> list[str]:
    """Names of the newest flow run's gates' states in their order, and of its own, once all are recorded."""
    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(limit=1, sort=FlowRunSort.START_TIME_DESC)[0]
        only, deadline = FlowRunFilter(id=FlowRunFilterId(any_=[run.id])), time.monotonic() + 30
        while time.monotonic() < deadline:  # task runs are recorded a moment later
            tasks = [task for task in client.read_task_runs(flow_run_filter=only) if task.name.endswith("gate")]
            if len(tasks) == gates and all(task.end_time for task in tasks):
                break
            time.sleep(0.2)
    return [task.state_name or "" for task in sorted(tasks, key=lambda t: str(t.start_time))] + [run.state_name or ""]


def test_states_of_a_rollback(tiny: ForgeConfig, lenient: None) -> None:
    forge(tiny)
    assert states(3) == ["Passed", "RolledBack", "Passed", "RolledBack"]


def test_states_of_a_stop(tiny: ForgeConfig, strict: None) -> None:
    with pytest.raises(GateFailed):
        forge(tiny)
    assert states(1) == ["GateFailed", "GateFailed"]


def test_states_of_a_retry(tiny: ForgeConfig, strict: None, caplog: pytest.LogCaptureFixture) -> None:
    cognate = tiny.cognate.model_copy(update={"on_fail": "retry"})
    with pytest.raises(GateFailed):
        forge(tiny.model_copy(update={"cognate": cognate}))
    assert states(2) == ["RetryNextSeed", "GateFailed", "GateFailed"]
    assert max(len(record.getMessage()) for record in caplog.records) < 500  # what the page shows stays readable


def test_approval_needs_a_deployment(tiny: ForgeConfig) -> None:
    with pytest.raises(InputError, match=r"approval\.required: only a run of a deployment"):
        forge(tiny.model_copy(update={"approval": ApprovalConfig(required=True)}))
    assert not tiny.folder.exists()  # before anything is done


def test_dated_run_has_the_day_in_its_name(tiny: ForgeConfig, strict: None) -> None:
    with pytest.raises(GateFailed):
        forge(tiny.model_copy(update={"dated": True}))
    days = {datetime.now(UTC).date() - timedelta(days=n) for n in (0, 1)}  # midnight may have passed
    assert {path.name for path in tiny.out.iterdir() if path.is_dir()} & {f"t-{day}" for day in days}


def test_agent_is_registered_and_champion(done: Report, original: ForgeConfig) -> None:
    client = MlflowClient(f"sqlite:///{original.out.resolve()}/mlflow.db")
    version = client.get_model_version_by_alias(original.agent, "champion")
    kept = (original.folder / "compression").resolve()
    assert done.agent is not None and version.tags["checkpoint.path"] == str(kept)
    assert set(version.aliases) == {"challenger", "champion"}
