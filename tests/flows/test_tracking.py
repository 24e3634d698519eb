"""MLflow: names it takes, buffered metrics, first use by several processes, and a server that is away."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from flows import outbox, run_log
from flows.pages import ui_address
from flows.tracking import Tracker, metric_name, refused, track, tracking_uri


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs whose database the tests share: making one takes seconds."""
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture
def tracker(out: Path, request: pytest.FixtureRequest) -> Iterator[Tracker]:
    with track(out, request.node.name, "2026-01-01") as tracker:
        yield tracker


def run_of(tracker: Tracker) -> Run:
    return tracker.client.get_run(tracker.parent.id)


def test_own_server_wins(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri(out) == f"sqlite:///{out}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    assert tracking_uri(out) == "http://tracking.example:5000"


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("gate/better than best single parent (memory)", "gate/better than best single parent memory"),
        ("trunk/loss", "trunk/loss"),
        ("a,b±c", "abc"),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_that_mlflow_takes(name: str, taken: str) -> None:
    assert metric_name(name) == taken


def test_metrics_arrive_whole_and_in_order(tracker: Tracker) -> None:
    with tracker.phase("cognate", "key") as log:
        for step in range(1200):  # more than one batch
            log.metrics(step, {"trunk/loss": 1200.0 - step})
    nested = tracker.client.search_runs([tracker.experiment], "tags.`forge.key` = 'key'")[0]
    history = tracker.client.get_metric_history(nested.info.run_id, "trunk/loss")
    assert [(m.step, m.value) for m in history] == [(step, 1200.0 - step) for step in range(1200)]
    assert nested.info.status == "FINISHED"


def test_long_and_nested_parameters(tracker: Tracker) -> None:
    tracker.begin({"a": {"b": 1}, "long": "y" * 9000}, {"tag": "t"})
    found = run_of(tracker).data
    assert found.params["a.b"] == "1" and len(found.params["long"]) == 6000 and found.tags["tag"] == "t"


def test_parameters_of_a_resumed_run_stay_as_they_were(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in (1, 2):
        with track(out, "parameters", "2026-01-01") as tracker:
            tracker.begin({"a": value}, {"try": value})
    found = run_of(tracker).data
    assert found.params == {"a": "1"} and found.tags["try"] == "2" and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError(), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_status_says_how_it_ended(out: Path, error: BaseException | None, status: str) -> None:
    try:
        with track(out, f"ends {status}", "2026-01-01") as tracker, tracker.phase("cognate", status):
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    runs = tracker.client.search_runs([tracker.experiment], f"tags.`forge.key` = '{status}'")
    assert [runs[0].info.status, run_of(tracker).info.status] == [status, status]


def test_resumed_run_is_found_again_and_another_start_is_not(out: Path) -> None:
    ids = []
    for started in ("2026-01-01", "2026-01-01", "2026-01-02"):
        with track(out, "resumed", started) as tracker:
            ids.append(tracker.parent.id)
    assert ids[0] == ids[1] != ids[2]


def broken(*arguments: object, **named: object) -> None:
    raise ConnectionError("gone")


def test_what_was_missed_is_sent_when_tracking_works_again(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outbox, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(outbox, "PAUSE_FACTOR", 0)
    with tracker.phase("cognate", "missed") as log:
        with monkeypatch.context() as patch:
            patch.setattr(tracker.client, "log_batch", broken)
            for step in range(700):
                log.metrics(step, {"trunk/loss": float(step)})
            tracker.begin({"a": 1}, {})
            assert tracker.outbox.away
        log.metrics(700, {"trunk/loss": 700.0})
    assert len(tracker.client.get_metric_history(log.id, "trunk/loss")) == 701
    assert tracker.client.get_run(log.id).info.status == "FINISHED" and run_of(tracker).data.params == {"a": "1"}
    said = capsys.readouterr().err
    assert said == "tracking stopped, the run goes on without it: gone\ntracking resumed\n"


def test_tracking_that_stays_away_is_said_and_costs_nothing(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    began = time.monotonic()
    with track(out, "away", "2026-01-01") as tracker, tracker.phase("cognate", "away") as log:
        for step in range(2000):
            log.metrics(step, {"loss": 1.0})
        assert tracker.link is None and tracker.now(lambda client, run_id: 3) is None
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "stopped" in said[0] and "did not come back" in said[1]
    assert time.monotonic() - began < 2


def test_too_many_metrics_drop_the_oldest(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(run_log, "KEPT_POINTS", 1000)
    with track(out, "many", "2026-01-01") as tracker:
        for step in range(2400):
            tracker.parent.metrics(step, {"loss": 1.0})
        kept = [point.step for point in tracker.parent._buffer]
    assert kept[-1] == 2399 and kept == sorted(kept) and 500 <= len(kept) <= 1000


def test_what_mlflow_refuses_is_left_out_and_the_rest_is_logged(
    tracker: Tracker, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        tracker.parent.write(lambda client, run_id: client.log_param(run_id, "a,b", 1))
    tracker.begin({"c": 2}, {})
    assert run_of(tracker).data.params == {"c": "2"} and not tracker.outbox.away
    assert capsys.readouterr().err.count("tracking: left out: Invalid value") == 1


@pytest.mark.parametrize(
    ("error", "never"),
    [
        (ConnectionError(), False),
        (sqlite3.OperationalError(), False),
        (OSError(28, "full"), False),
        (TypeError(), True),
    ],
)
def test_what_is_worth_waiting_for(error: Exception, never: bool) -> None:
    assert refused(error) is never


def test_where_the_pages_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ui_address() == "http://127.0.0.1:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking.example/mlflow/")
    assert ui_address() == "https://tracking.example/mlflow"
    monkeypatch.setenv("FORGE_MLFLOW_URL", "http://127.0.0.1:5001")
    assert ui_address() == "http://127.0.0.1:5001"


@pytest.mark.slow
def test_first_use_by_three_processes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from flows.quiet import settle_environment; settle_environment()\n"
        "from flows.tracking import track\n"
        "with track(Path(sys.argv[1]), sys.argv[2], 'now') as t: assert not t.outbox.away and t.link"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, str(tmp_path)]
    started = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "abc"]
    assert [process.communicate(timeout=300)[1] for process in started] == ["", "", ""]
    assert [process.returncode for process in started] == [0, 0, 0]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert len(client.search_experiments(filter_string="name = 'agent-forge'")) == 1
