"""A real `mlflow server` on loopback: all that a run leaves there, the registry, and a server that dies and returns."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import save_file

from evaluation.judgement import Judgement
from evaluation.metric import Metric, gate
from flows import outbox
from flows.champion import promote, rollback
from flows.cli import main
from flows.registry import Origin, register
from flows.tracking import track
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, write_manifest

pytestmark = pytest.mark.slow


class LiveServer:
    """`mlflow server` with a database and artifacts of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.folder = f"http://127.0.0.1:{self.port}", folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        store += ["--artifacts-destination", str(self.folder / "artifacts")]
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *where, *store],
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        for _ in range(600):
            try:
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise TimeoutError((self.folder / "log").read_text())

    def kill(self) -> None:
        assert self.process is not None
        process = psutil.Process(self.process.pid)
        for one in [*process.children(recursive=True), process]:
            one.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    server = LiveServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(live: LiveServer, local: None, monkeypatch: pytest.MonkeyPatch) -> LiveServer:
    """The server, as this test's tracking server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", live.url)
    return live


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is tried again at once."""
    monkeypatch.setattr(outbox, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(outbox, "PAUSE_FACTOR", 0)


@pytest.fixture
def client(server: LiveServer) -> MlflowClient:
    return MlflowClient(server.url)


def agent(folder: Path, seed: int) -> Checkpoint:
    """A checkpoint as far as files go, with one in a subfolder."""
    (folder / "siblings").mkdir(parents=True)
    (folder / "siblings" / "note").write_text("s")
    (folder / "config.json").write_text("{}")
    save_file({"w": torch.full((500, 500), float(seed))}, folder / "model.safetensors")
    write_manifest(folder, Manifest("evomerge", seed=seed))
    return open_checkpoint(folder)


def fake_outcome() -> Any:
    """A judged phase with one metric and one figure, the loss."""
    metric = Metric(name="perplexity", split="test", value=3.0, stderr=0.1, n=9, unit="")
    judgement = Judgement(metrics=(metric,), gates=(gate("good", "perplexity", 3.0, "<", 4.0),))
    config = SimpleNamespace(model_dump=lambda mode: {"steps": 5})
    made = SimpleNamespace(path=Path("/nowhere"))
    lineage = {"status": "passed", "checkpoint.digest": "c"}
    return SimpleNamespace(judgement=judgement, stage=SimpleNamespace(config=config), made=made, lineage=lineage)


def test_all_that_a_run_leaves(server: LiveServer, client: MlflowClient, tmp_path: Path) -> None:
    data: Any = SimpleNamespace(path=tmp_path, digest="e" * 64)
    outcome = fake_outcome()
    for _ in range(2):  # the second finds all of it again
        with track(tmp_path, "whole", "2026-01-01") as tracker:
            tracker.begin({"seed": 1}, {"prefect.flow_run_id": "f"})
            tracker.data(data)
            with tracker.phase("cognate", "k") as log:
                if not log.run.data.metrics:
                    for step in range(1200):
                        log.metrics(step, {"trunk/loss": float(step)})
                log.outcome(outcome)
            tracker.report("# Report")
    parent = client.get_run(tracker.parent.id)
    assert parent.info.status == "FINISHED" and parent.data.params == {"seed": "1"}
    assert parent.data.tags["data.digest"] == "e" * 64 and parent.inputs.dataset_inputs[0].dataset.digest == "e" * 32
    assert [found.path for found in client.list_artifacts(parent.info.run_id)] == ["report.md"]
    assert tracker.link == f"{server.url}/#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}"
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    nested = client.search_runs([parent.info.experiment_id], query)
    assert len(nested) == 1 and nested[0].info.status == "FINISHED"
    found = nested[0].data
    assert found.metrics["test/perplexity"] == 3.0 and found.metrics["gate/good"] == 1.0
    assert found.params == {"steps": "5"} and found.tags["checkpoint.digest"] == "c"
    assert len(client.get_metric_history(log.id, "trunk/loss")) == 1200
    assert len(client.get_metric_history(log.id, "test/perplexity")) == 1
    assert {f.path for f in client.list_artifacts(log.id)} == {"judgement.json", "loss.png"}
    assert not (tmp_path / "mlflow.db").exists() and not (tmp_path / ".mlflow.lock").exists()


def test_the_registry(server: LiveServer, client: MlflowClient, tmp_path: Path, capsys: Any) -> None:
    origin = Origin("smoke", "t", "d", True)
    for number in (1, 2, 2):
        with track(tmp_path, f"run {number}", "2026-01-01") as tracker:
            folder = tmp_path / str(number)
            made = open_checkpoint(folder) if folder.exists() else agent(folder, number)
            version = register(tracker, "remote", made, origin)
        assert version is not None and version.number == number
        assert version.link == f"{server.url}/#/models/remote/versions/{number}"
    capsys.readouterr()
    assert promote(client, "remote", 1).champion == 1 and promote(client, "remote").champion == 2
    assert rollback(client, "remote").champion == 1
    aliases = client.get_registered_model("remote").aliases
    assert {alias: int(number) for alias, number in aliases.items()} == {"challenger": 2, "champion": 1}
    assert main(["promote", "remote", "--version", "2", "--out", str(tmp_path / "nowhere")]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("remote 2 promoted") and shown.err == "" and not (tmp_path / "nowhere").exists()
    version = client.get_model_version("remote", "1")
    weights = next((server.folder / "artifacts").rglob(f"{version.source.rsplit('/')[-1]}/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert main(["rollback", "remote"]) == 2
    assert "remote 1: its files in MLflow are damaged (model.safetensors: truncated" in capsys.readouterr().err


def test_a_server_that_dies_and_returns(
    server: LiveServer,
    client: MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(outbox, "PAUSE_SECONDS", 0.5)
    with track(tmp_path, "dies", "2026-01-01") as tracker:
        with tracker.phase("cognate", "first") as first:
            first.metrics(0, {"loss": 1.0})
            server.kill()
            began = time.monotonic()
            for step in range(1, 3000):
                first.metrics(step, {"loss": 1.0})
        with tracker.phase("evomerge", "second") as second:
            second.metrics(0, {"loss": 2.0})
        tracker.begin({"late": 1}, {})
        assert tracker.now(lambda client, run_id: run_id) is None
        lost_s = time.monotonic() - began
        assert main(["promote"]) == 2
        server.start()
        tracker.report("# Report")
        assert tracker.now(lambda client, run_id: run_id) == tracker.parent.id
    assert capsys.readouterr().err.splitlines() == [
        f"tracking stopped, the run goes on without it: {server.url} does not answer",
        f"forge: MLflow: {server.url} does not answer; start it, or unset MLFLOW_TRACKING_URI",
        "tracking resumed",
    ]
    assert lost_s < 2
    assert len(client.get_metric_history(first.id, "loss")) == 3000
    assert client.get_metric_history(second.id, "loss")[0].value == 2.0
    assert {client.get_run(run.id).info.status for run in (first, second, tracker.parent)} == {"FINISHED"}
    assert client.get_run(second.id).data.tags["mlflow.parentRunId"] == tracker.parent.id
    assert client.get_run(tracker.parent.id).data.params == {"late": "1"}


@pytest.mark.usefixtures("impatient")
def test_a_server_that_comes_late(
    server: LiveServer, client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.kill()
    with track(tmp_path, "late", "2026-01-01") as tracker:
        tracker.begin({"a": 1}, {})
        assert tracker.link is None
        server.start()
        with tracker.phase("cognate", "late") as log:
            log.metrics(0, {"loss": 1.0})
    assert client.get_run(tracker.parent.id).data.params == {"a": "1"} and tracker.link
    assert client.get_metric_history(log.id, "loss")[0].value == 1.0
    assert "tracking resumed" in capsys.readouterr().err


def test_a_server_that_hangs_costs_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as deaf:  # takes connections, never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        with track(tmp_path, "hangs", "2026-01-01") as tracker, tracker.phase("cognate", "hangs") as log:
            for step in range(3000):
                log.metrics(step, {"loss": 1.0})
        assert time.monotonic() - began < 6  # once at the start, once at the end
        assert main(["promote"]) == 2 and time.monotonic() - began < 12
    said = capsys.readouterr().err
    assert said.count("\n") == 3 and "secret" not in said


BURST = """
import sys, logging
from pathlib import Path
from flows.quiet import settle_environment; settle_environment()
from flows.tracking import track
with track(Path(sys.argv[1]), sys.argv[2], "now") as tracker, tracker.phase("cognate", sys.argv[2]) as log:
    for step in range(2000):
        log.metrics(step, {"a": step, "b": -step})
    assert not tracker.outbox.away
"""


def test_four_processes_write_to_one_database_at_once(tmp_path: Path) -> None:
    with track(tmp_path, "first", "now") as tracker:  # the first use is measured elsewhere
        pass
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    started = [
        subprocess.Popen([sys.executable, "-c", BURST, str(tmp_path), name], stderr=subprocess.PIPE, env=environment)
        for name in "abcd"
    ]
    assert [process.communicate(timeout=300)[1] for process in started] == [b""] * 4
    for name in "abcd":
        run = tracker.client.search_runs([tracker.experiment], f"tags.`forge.key` = '{name}'")[0]
        for metric, sign in (("a", 1), ("b", -1)):
            history = tracker.client.get_metric_history(run.info.run_id, metric)
            assert [m.value for m in history] == [sign * step for step in range(2000)]
