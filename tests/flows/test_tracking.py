"""MLflow: names it takes, buffered metrics, first use by several processes, and failure that costs nothing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.tracking import Guard, Tracker, metric_name, track, tracking_uri


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs whose database the tests share: making one takes seconds."""
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture
def tracker(out: Path, request: pytest.FixtureRequest) -> Iterator[Tracker]:
    with track(out, request.node.name, "2026-01-01") as tracker:
        yield tracker


def run_of(tracker: Tracker) -> Run:
    assert tracker.parent is not None
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
    assert tracker.parent is not None
    nested = tracker.client.search_runs([tracker.parent.experiment], "tags.`forge.key` = 'key'")[0]
    history = tracker.client.get_metric_history(nested.info.run_id, "trunk/loss")
    assert [(m.step, m.value) for m in history] == [(step, 1200.0 - step) for step in range(1200)]
    assert nested.info.status == "FINISHED"


def test_long_and_nested_parameters(tracker: Tracker) -> None:
    tracker.begin({"a": {"b": 1}, "long": "y" * 9000}, {"tag": "t"})
    found = run_of(tracker).data
    assert found.params["a.b"] == "1" and len(found.params["long"]) == 6000 and found.tags["tag"] == "t"
    tracker.begin({"a": {"b": 1}}, {})  # a resumed run says the same again
    assert tracker.guard.alive


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
    assert tracker.parent is not None
    runs = tracker.client.search_runs([tracker.parent.experiment], f"tags.`forge.key` = '{status}'")
    assert [runs[0].info.status, run_of(tracker).info.status] == [status, status]


def test_resumed_run_is_found_again_and_another_start_is_not(out: Path) -> None:
    ids = []
    for started in ("2026-01-01", "2026-01-01", "2026-01-02"):
        with track(out, "resumed", started) as tracker:
            assert tracker.parent is not None
            ids.append(tracker.parent.id)
    assert ids[0] == ids[1] != ids[2]


def test_guard_says_it_once_and_stops_calling(capsys: pytest.CaptureFixture[str]) -> None:
    guard, calls = Guard(), []

    def fail() -> None:
        calls.append(1)
        raise OSError("no\nserver")

    assert guard(lambda: 3) == 3
    assert [guard(fail), guard(fail), guard(lambda: 4)] == [None, None, None] and len(calls) == 1
    assert capsys.readouterr().err == "tracking stopped, the run goes on without it: no server\n"


def test_tracking_that_breaks_in_the_middle(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with track(out, "breaks", "2026-01-01") as tracker, tracker.phase("cognate", "breaks") as log:
        log.metrics(0, {"loss": 1.0})
        tracker.client.log_batch = broken  # type: ignore[method-assign]
    assert capsys.readouterr().err.count("tracking stopped") == 1


def broken(*arguments: object, **named: object) -> None:
    raise ConnectionError("gone")


@pytest.mark.slow
def test_first_use_by_three_processes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from flows.quiet import settle_environment; settle_environment()\n"
        "from flows.tracking import track\n"
        "with track(Path(sys.argv[1]), sys.argv[2], 'now') as t: assert t.guard.alive and t.parent"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, str(tmp_path)]
    started = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "abc"]
    assert [process.communicate(timeout=300)[1] for process in started] == ["", "", ""]
    assert [process.returncode for process in started] == [0, 0, 0]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert len(client.search_experiments(filter_string="name = 'agent-forge'")) == 1
