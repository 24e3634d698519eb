"""MLflow: one parent run for a forge run, a nested run for each phase. The one file that imports mlflow.

    MLFLOW_TRACKING_URI=http://host:5000 forge run      # or, without it, sqlite in <out>/mlflow.db

Tracking may fail and must not cost the run: after the first failure it falls silent for good, having said so once.
Runs are found again by tag, so that a resumed run goes on in the same MLflow runs.
"""

import contextlib
import logging
import os
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, Metric, Param, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from flows.console import say
from flows.figures import figures
from flows.gating import Outcome
from flows.parameters import flatten
from flows.run_directory import DATABASE, hold, local_uri
from phases.dataset import Dataset
from phases.storage import sha256_json

EXPERIMENT = "agent-forge"
T = TypeVar("T")
FLUSH_METRICS, FLUSH_SECONDS = 500, 5.0
BATCH_METRICS, BATCH_PARAMS = 1000, 100
"""Most that MLflow takes in one call."""


def tracking_uri(out: Path) -> str:
    """Where runs are tracked: `MLFLOW_TRACKING_URI`, else sqlite in the folder of all runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_uri(out)


class Guard:
    """Calls MLflow until it fails for the first time."""

    def __init__(self) -> None:
        self.alive = True

    def __call__(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T | None:
        """The function's result; None once tracking has failed."""
        if not self.alive:
            return None
        try:
            return function(*args, **kwargs)
        except Exception as error:  # whatever is wrong with the tracking server, the run is worth more
            self.alive = False
            reason = " ".join(str(error).split())[:200]
            say(f"tracking stopped, the run goes on without it: {reason}")
            return None


class RunLog:
    """One MLflow run; metrics are buffered, because a call for each costs 50 times as much."""

    def __init__(self, client: MlflowClient, guard: Guard, experiment: str, name: str, tags: Mapping[str, str]) -> None:
        self.client, self.guard, self.experiment = client, guard, experiment
        self._buffer: list[Metric] = []
        self._flushed = time.monotonic()
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = client.search_runs([experiment], query, max_results=1)
        if found:
            client.update_run(found[0].info.run_id, status="RUNNING")
        run = found[0] if found else client.create_run(experiment, tags=dict(tags), run_name=name)
        self.id: str = run.info.run_id
        self.resumed = bool(found)
        self.known_tags: dict[str, str] = dict(run.data.tags)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """A phase's metrics callback."""
        now = int(time.time() * 1000)
        self._buffer += [Metric(metric_name(name), float(value), now, step) for name, value in values.items()]
        if len(self._buffer) >= FLUSH_METRICS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        for start in range(0, len(self._buffer), BATCH_METRICS):
            self.guard(self.client.log_batch, self.id, metrics=self._buffer[start : start + BATCH_METRICS])
        self._buffer, self._flushed = [], time.monotonic()

    def describe(self, params: Mapping[str, object], tags: Mapping[str, object]) -> None:
        """Log parameters and tags."""
        pairs = [Param(key, str(value)[:6000]) for key, value in flatten(params).items()]
        for start in range(0, len(pairs), BATCH_PARAMS):
            self.guard(self.client.log_batch, self.id, params=pairs[start : start + BATCH_PARAMS])
        self.guard(self.client.log_batch, self.id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Every logged loss by name as (step, value), earlier attempts' included; a step logged twice counts once."""
        names = [name for name in self.client.get_run(self.id).data.metrics if name.endswith("/loss")]
        histories = {name: self.client.get_metric_history(self.id, name) for name in names}
        return {
            name: sorted({m.step: m.value for m in sorted(history, key=lambda m: m.timestamp)}.items())
            for name, history in histories.items()
        }

    def close(self, status: str) -> None:
        """Flush and end the run: FINISHED, FAILED or KILLED."""
        self.flush()
        self.guard(self.client.set_terminated, self.id, status)


class Tracker:
    """The parent run and its nested runs. Every method may be called whether tracking works or not."""

    def __init__(self, out: Path, name: str, identity: str) -> None:
        self.uri, self.guard, self.identity = tracking_uri(out), Guard(), identity
        self._monitor: SystemMetricsMonitor | None = None
        self.parent: RunLog | None = self.guard(self._open, out, name)
        if self.parent is not None:
            self.guard(self._watch, self.parent)

    def _open(self, out: Path, name: str) -> RunLog:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.client, experiment = _connect(self.uri, out)
        return RunLog(self.client, self.guard, experiment, name, {"forge.run": self.identity})

    def _watch(self, parent: RunLog) -> None:
        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        self._monitor = SystemMetricsMonitor(parent.id, tracking_uri=self.uri, resume_logging=parent.resumed)
        self._monitor.start()

    def begin(self, params: Mapping[str, object], tags: Mapping[str, object]) -> None:
        """Parameters and tags of the whole run."""
        if self.parent is not None:
            self.parent.describe(params, tags)

    def data(self, data: Dataset) -> None:
        """The data as an input of the run, by digest."""
        if self.parent is None:
            return
        source = str(data.path.resolve())
        logged = LoggedDataset(name="forge-data", digest=data.digest[:32], source_type="local", source=source)
        self.guard(self.client.log_inputs, self.parent.id, [DatasetInput(logged)])
        self.parent.describe({}, {"data.digest": data.digest})

    @contextlib.contextmanager
    def phase(self, name: str, key: str) -> Iterator["PhaseLog"]:
        """The nested run of a phase with this cache key, new or found again; it ends as the block ends."""
        run: RunLog | None = None
        if self.parent is not None:
            tags = {"mlflow.parentRunId": self.parent.id, "forge.phase": name, "forge.key": key}
            run = self.guard(RunLog, self.client, self.guard, self.parent.experiment, name, tags)
        with closing(lambda status: run.close(status) if run else None):
            yield PhaseLog(run)

    def report(self, markdown: str) -> None:
        """The report as an artifact of the parent run."""
        if self.parent is not None:
            self.guard(self.client.log_text, self.parent.id, markdown, "report.md")

    @property
    def link(self) -> str | None:
        """Address of the parent run in MLflow's UI; for sqlite, where `mlflow ui` will serve it."""
        if self.parent is None:
            return None
        base = self.uri if self.uri.startswith("http") else "http://127.0.0.1:5000"
        return f"{base.rstrip('/')}/#/experiments/{self.parent.experiment}/runs/{self.parent.id}"

    def close(self, status: str) -> None:
        """End the parent run."""
        if self._monitor is not None:
            self.guard(self._monitor.finish)
        if self.parent is not None:
            self.parent.close(status)


class PhaseLog:
    """A phase's nested run, or nothing when tracking has failed."""

    def __init__(self, run: RunLog | None) -> None:
        self._run = run

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """The phase's metrics callback."""
        if self._run is not None:
            self._run.metrics(step, values)

    def outcome(self, outcome: Outcome) -> None:
        """Measurements, verdict, lineage and pictures of a judged phase; once for each checkpoint and verdict."""
        log, judgement = self._run, outcome.judgement
        tags = {**outcome.lineage, "verdict": sha256_json(judgement.model_dump(mode="json"))}
        if log is None or log.known_tags.get("verdict") == tags["verdict"]:
            return
        log.metrics(0, {f"{m.split}/{m.name}": m.value for m in judgement.metrics})
        log.metrics(0, {f"stderr/{m.split}/{m.name}": m.stderr for m in judgement.metrics if m.stderr is not None})
        log.metrics(0, {f"gate/{g.name}": float(g.passed) for g in judgement.gates})
        log.flush()
        log.guard(log.client.log_dict, log.id, judgement.model_dump(mode="json"), "judgement.json")
        for name, figure in (log.guard(lambda: figures(outcome, log.curves())) or {}).items():
            log.guard(log.client.log_figure, log.id, figure, name)
        log.describe(outcome.stage.config.model_dump(mode="json"), tags)


@contextlib.contextmanager
def closing(close: Callable[[str], None]) -> Iterator[None]:
    """Call `close` with FINISHED, FAILED (an error) or KILLED (Ctrl-C) as the block ends."""
    try:
        yield
    except Exception:
        close("FAILED")
        raise
    except BaseException:
        close("KILLED")
        raise
    close("FINISHED")


@contextlib.contextmanager
def track(out: Path, name: str, started: str) -> Iterator[Tracker]:
    """A tracker for the run `name` in `out` that was first started then; it ends as the block ends."""
    tracker = Tracker(out, name, sha256_json([str(out.resolve()), name, started])[:32])
    with closing(tracker.close):
        yield tracker


def metric_name(name: str) -> str:
    """A name that MLflow takes: letters, digits, `_-. :/`."""
    return re.sub(r"[^\w\-. :/]", "", name)[:250]


def _connect(uri: str, out: Path) -> tuple[MlflowClient, str]:
    """A client and the id of our experiment. Two first runs at once must not both migrate an empty database."""
    own = uri == local_uri(out)
    with hold(out / ".mlflow.lock", wait=True) if own else contextlib.nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Alembic's, about constraints in MLflow's own migrations
        client = MlflowClient(tracking_uri=uri)
        if own:
            with contextlib.closing(sqlite3.connect(out / DATABASE)) as database:
                database.execute("PRAGMA journal_mode=WAL")
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return client, str(found.experiment_id)
        # The default would be a folder in whatever directory the command was started from.
        artifacts = (out.resolve() / "mlartifacts").as_uri() if own else None
        return client, str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
