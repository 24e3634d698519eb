"""MLflow: one parent run for a forge run, a nested run for each phase. The one file that imports mlflow.

    MLFLOW_TRACKING_URI=http://host:5000 forge run      # or, without it, sqlite in <out>/mlflow.db

Tracking may fail and must not cost the run: what a server that is away should have had waits in an outbox until it is
back. Runs are found again by tag, so that a resumed run goes on in the same MLflow runs.
"""

import contextlib
import json
import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient as MlflowClient  # the registry's, too
from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy.exc import SQLAlchemyError

from flows.console import say
from flows.outbox import Outbox, reason
from flows.pages import run_page
from flows.parameters import flatten
from flows.run_log import Point, RunLog, closing
from flows.runs_folder import hold, local_uri
from phases.dataset import Dataset
from phases.errors import InputError
from phases.storage import sha256_json

EXPERIMENT = "agent-forge"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Opens MLflow's page on runs and their metrics, not on traces of prompts."""
T = TypeVar("T")
BATCH_METRICS, BATCH_PARAMS = 1000, 100
"""Most that MLflow takes in one call."""
ANSWER_SECONDS = 2.0
FAILURES = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError)
"""What MLflow raises; errors of HTTP are `OSError`s."""
CHATTER = {
    "alembic": logging.WARNING,
    "mlflow": logging.WARNING,
    "mlflow.store.db.utils": logging.CRITICAL,
    "mlflow.system_metrics": logging.CRITICAL,
    "urllib3.connectionpool": logging.ERROR,
}
"""What they may say besides our own line."""


def tracking_uri(out: Path) -> str:
    """Where runs are tracked: `MLFLOW_TRACKING_URI`, else sqlite in the folder of all runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_uri(out)


def unless(code: str, call: Callable[[], T]) -> T | None:
    """The call's result; None when MLflow answers with this error code, such as RESOURCE_DOES_NOT_EXIST."""
    try:
        return call()
    except MlflowException as error:
        if error.error_code != code:
            raise
        return None


@contextlib.contextmanager
def existing(out: Path) -> Iterator[MlflowClient]:
    """A client of the server, which must answer, or of the database, which must exist: none is made.

    Raises `InputError` when it does not, and for whatever MLflow cannot do in the block.
    """
    uri = tracking_uri(out)
    file = database_file(uri)
    if file is not None and not file.is_file():
        raise InputError(f"{file.parent}: no {file.name} of earlier runs; give --out DIR or set MLFLOW_TRACKING_URI")
    try:
        ask(uri)
        yield connect(uri)
    except ConnectionError as error:
        raise InputError(f"MLflow: {reason(error)}; start it, or unset MLFLOW_TRACKING_URI") from error
    except FAILURES as error:
        raise InputError(f"MLflow: {reason(error)}") from error


def ask(uri: str) -> None:
    """Raise `ConnectionError` when a tracking server does not answer within two seconds."""
    if uri.startswith("http"):
        try:
            http_request(get_default_host_creds(uri), "/health", "GET", timeout=ANSWER_SECONDS, max_retries=0)
        except MlflowException as error:
            raise ConnectionError(f"{uri} does not answer") from error


def connect(uri: str) -> MlflowClient:
    """A client."""
    for name, level in CHATTER.items():
        logging.getLogger(name).setLevel(level)
    with first_use(uri), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Alembic's, about constraints in MLflow's own migrations
        client = MlflowClient(tracking_uri=uri)
        file = database_file(uri)
        if file is not None:
            with contextlib.closing(sqlite3.connect(file)) as database:
                database.execute("PRAGMA journal_mode=WAL")
    return client


def database_file(uri: str) -> Path | None:
    """The file of a database of our own; None for a server."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def first_use(uri: str) -> contextlib.AbstractContextManager[None]:
    """Two first uses at once must not both migrate an empty database, or both make the experiment."""
    file = database_file(uri)
    return contextlib.nullcontext() if file is None else hold(file.with_name(".mlflow.lock"), wait=True)


def find_experiment(client: MlflowClient, uri: str) -> str:
    """The id of our experiment, which is made when there is none."""
    with first_use(uri):
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        # The default would be a folder in whatever directory the command was started from.
        file = database_file(uri)
        artifacts = None if file is None else (file.parent.resolve() / "mlartifacts").as_uri()
        return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts, tags=KIND))


class Tracker:
    """The parent run and its nested runs. Every method may be called whether the server is there or not."""

    def __init__(self, out: Path, name: str, identity: str) -> None:
        self.uri, self.experiment = tracking_uri(out), ""
        self._client: MlflowClient | None = None
        self._monitor: SystemMetricsMonitor | None = None
        self.outbox = Outbox(self._ask, refused, self._watch)
        self.parent = RunLog(self, name, {"forge.run": identity})
        if not self.outbox.away:
            self.outbox.put(self._watch)

    @property
    def client(self) -> MlflowClient:
        """For what goes through the outbox: there is one when the server has answered."""
        assert self._client is not None
        return self._client

    def _ask(self) -> None:
        ask(self.uri)
        if self._client is None:
            client = connect(self.uri)
            self.experiment = find_experiment(client, self.uri)
            self._client = client

    def _watch(self) -> None:
        """Log the machine's load; MLflow's thread for it ends when the server goes away."""
        if self.parent.run is None:
            return
        if self._monitor is not None:
            self._monitor.finish()
        self._monitor = SystemMetricsMonitor(self.parent.id, tracking_uri=self.uri, resume_logging=True)
        self._monitor.start()

    def begin(self, params: Mapping[str, object], tags: Mapping[str, object]) -> None:
        """Parameters and tags of the whole run."""
        self.parent.describe(params, tags)

    def data(self, data: Dataset) -> None:
        """The data as an input of the run, by digest."""
        self.input("forge-data", data.digest, data.path)

    def input(self, name: str, digest: str, folder: Path, sizes: Mapping[str, object] | None = None) -> None:
        """A data set in a folder as an input of the run; MLflow shows the `sizes` beside it."""
        source, profile = str(folder.resolve()), None if sizes is None else json.dumps(dict(sizes))
        logged = LoggedDataset(name=name, digest=digest[:32], source_type="local", source=source, profile=profile)
        self.parent.write(lambda client, run_id: client.log_inputs(run_id, [DatasetInput(logged)]))
        self.parent.describe({}, {"data.digest": digest})

    @contextlib.contextmanager
    def phase(self, name: str, key: str) -> Iterator[RunLog]:
        """The nested run of a phase with this cache key, new or found again; it ends as the block ends."""
        run = RunLog(self, name, {"forge.phase": name, "forge.key": key}, self.parent)
        with closing(run.close):
            yield run

    def report(self, markdown: str) -> None:
        """The report as an artifact of the parent run."""
        self.parent.write(lambda client, run_id: client.log_text(run_id, markdown, "report.md"))

    @property
    def link(self) -> str | None:
        """Address of the parent run in MLflow's UI; None as long as the server has not answered."""
        return None if self.parent.run is None else run_page(self.experiment, self.parent.id)

    def now(self, call: Callable[[MlflowClient, str], T]) -> T | None:
        """Its result with the client and the parent run's id, after all that waits; None while the server is away."""
        return self.outbox.now(lambda: self.parent.call(call))

    def log_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Metrics, in batches; called through the outbox."""
        metrics = [Metric(metric_name(p.name), p.value, p.time_ms, p.step) for p in points]
        for start in range(0, len(metrics), BATCH_METRICS):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])

    def log_facts(self, run: Run, params: Mapping[str, object], tags: Mapping[str, object]) -> None:
        """Parameters, which stay as they were first logged, and tags; called through the outbox."""
        known = run.data.params
        new = [Param(key, str(value)[:6000]) for key, value in flatten(params).items() if key not in known]
        for start in range(0, len(new), BATCH_PARAMS):
            self.client.log_batch(run.info.run_id, params=new[start : start + BATCH_PARAMS])
        self.client.log_batch(run.info.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def close(self, status: str) -> None:
        """End the parent run."""
        if self.outbox.send(now=True) and self._monitor is not None:
            self._monitor.finish()
        self.parent.close(status)
        if self.outbox.away:
            say("tracking: the server did not come back; the same command logs the results again")


@contextlib.contextmanager
def track(out: Path, name: str, started: str) -> Iterator[Tracker]:
    """A tracker for the run `name` in `out` that was first started then; it ends as the block ends."""
    tracker = Tracker(out, name, sha256_json([str(out.resolve()), name, started])[:32])
    with closing(tracker.close):
        yield tracker


def metric_name(name: str) -> str:
    """A name that MLflow takes: letters, digits, `_-. :/`."""
    return re.sub(r"[^\w\-. :/]", "", name)[:250]


def refused(error: Exception) -> bool:
    """Whether the server has answered and would never take this, so that waiting is of no use."""
    if isinstance(error, MlflowException):
        return error.get_http_status_code() in (400, 404, 413)
    response = getattr(error, "response", None)  # of an upload
    return not isinstance(error, FAILURES) or getattr(response, "status_code", 500) in (400, 404, 413)
