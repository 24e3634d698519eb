"""`RunLog`: one MLflow run, written through the outbox: what a phase measures while it runs, and what became of it."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from flows.console import say
from flows.figures import figures
from flows.gating import Outcome
from phases.dataset import SPLITS
from phases.storage import sha256_json

if TYPE_CHECKING:
    from flows.tracking import Tracker

T = TypeVar("T")
FLUSH_POINTS, FLUSH_SECONDS = 500, 5.0
KEPT_POINTS = 100_000
"""Most that a run keeps for a server that is away: about 20 MB."""


class Point(NamedTuple):
    """A metric at a step."""

    name: str
    value: float
    time_ms: int
    step: int


class RunLog:
    """One MLflow run, opened by the first thing in the outbox; metrics are buffered: single calls cost 50×."""

    def __init__(self, tracker: "Tracker", name: str, tags: Mapping[str, str], parent: "RunLog | None" = None) -> None:
        """The run with these tags, found again or new."""
        self._tracker, self._name, self._identity, self._parent = tracker, name, tags, parent
        self._buffer: list[Point] = []
        self._flushed = time.monotonic()
        self._crowded = False
        self.run: Any = None
        """As MLflow had it when it was opened; None until then, and for good when MLflow refuses it."""
        tracker.outbox.put(self._open)

    def _open(self) -> None:
        if self._parent is not None and self._parent.run is None:
            return
        client, experiment = self._tracker.client, self._tracker.experiment
        nested = {} if self._parent is None else {"mlflow.parentRunId": self._parent.id}
        tags = {**nested, **self._identity}
        found = client.search_runs(
            [experiment], " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items()), max_results=1
        )
        if found:
            client.update_run(found[0].info.run_id, status="RUNNING")
        self.run = found[0] if found else client.create_run(experiment, tags=tags, run_name=self._name)

    @property
    def id(self) -> str:
        """MLflow's name for it, once it is open."""
        return str(self.run.info.run_id)

    def write(self, call: Callable[[Any, str], object]) -> None:
        """Call it with the client and the run's id: now, or when the server is back."""
        self._tracker.outbox.put(lambda: self.call(call))

    def call(self, call: Callable[[Any, str], T]) -> T | None:
        """Call it with the client and the run's id; not for a run that was refused."""
        return None if self.run is None else call(self._tracker.client, self.id)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """A phase's metrics callback."""
        self._buffer += points(step, values)
        if len(self._buffer) >= FLUSH_POINTS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flushed = time.monotonic()
            if self._tracker.outbox.send():
                self.flush()
            elif len(self._buffer) > KEPT_POINTS:
                del self._buffer[: -KEPT_POINTS // 2]
                if not self._crowded:
                    say("tracking: too many metrics wait, the oldest are dropped")
                self._crowded = True

    def flush(self) -> None:
        """Hand what is buffered to the outbox."""
        waiting, self._buffer = self._buffer, []
        if waiting:
            self.write(lambda _, run_id: self._tracker.log_points(run_id, waiting))

    def describe(self, params: Mapping[str, object], tags: Mapping[str, object]) -> None:
        """Log parameters and tags."""
        self.write(lambda _, run_id: self._tracker.log_facts(self.run, params, tags))

    def outcome(self, outcome: Outcome) -> None:
        """Measurements, verdict, lineage and pictures of a judged phase; once for each checkpoint and verdict."""
        judgement = outcome.judgement
        verdict = judgement.model_dump(mode="json")
        tags = {**outcome.lineage, "verdict": sha256_json(verdict)}
        measured = points(0, {f"{m.split}/{m.name}": m.value for m in judgement.metrics})
        errors = {f"stderr/{m.split}/{m.name}": m.stderr for m in judgement.metrics if m.stderr is not None}
        measured += points(0, errors) + points(0, {f"gate/{g.name}": float(g.passed) for g in judgement.gates})

        def log(client: Any, run_id: str) -> None:
            if self.run.data.tags.get("verdict") == tags["verdict"]:
                return
            self._tracker.log_points(run_id, measured)
            client.log_dict(run_id, verdict, "judgement.json")
            for name, figure in figures(outcome, curves(client, run_id)).items():
                client.log_figure(run_id, figure, name)
            self._tracker.log_facts(self.run, outcome.stage.config.model_dump(mode="json"), tags)

        self.flush()  # the curves are drawn from what was logged
        self.write(log)

    def close(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        ended = int(time.time() * 1000)
        self.flush()
        self.write(lambda client, run_id: client.set_terminated(run_id, status, ended))


def points(step: int, values: Mapping[str, float]) -> list[Point]:
    """Metrics of this moment."""
    now = int(time.time() * 1000)
    return [Point(name, float(value), now, step) for name, value in values.items()]


JUDGED = ("stderr/", "gate/", *(f"{split}/" for split in SPLITS))
"""What the names of a verdict's figures start with."""


def curves(client: Any, run_id: str) -> dict[str, list[tuple[float, float]]]:
    """What training logged, by name as (step, value), earlier attempts' included; a step logged twice counts once."""
    names = [name for name in client.get_run(run_id).data.metrics if not name.startswith(JUDGED)]
    histories = {name: client.get_metric_history(run_id, name) for name in names}
    return {
        name: sorted({m.step: m.value for m in sorted(history, key=lambda m: m.timestamp)}.items())
        for name, history in histories.items()
    }


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
