"""What a phase is: a strict config, one function, gates; and the cache key that says when its result still holds.

    run(parents, config, out, *, data, metrics, pool) -> Checkpoint

`parents` are verified checkpoints (none for the first phase), `out` is the directory to make, `data` the prepared
corpus and tasks, `metrics(step, {name: value})` receives curves (by default nobody listens), and `pool` maps a
function over independent jobs (by default one after the other, here). A phase keeps its
unfinished work in `<out>.work/` and continues from there when it is run again with the same cache key.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from phases.checkpoint import Checkpoint, open_checkpoint
from phases.dataset import Dataset
from phases.fingerprint import source_fingerprint
from phases.storage import explain_os_errors, sha256_json, write_json
from phases.strict import SectionSeed, StrictModel

MetricsCallback = Callable[[int, Mapping[str, float]], None]
Pool = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
OnFail = Literal["stop", "rollback", "retry"]


def ignore_metrics(step: int, values: Mapping[str, float]) -> None:
    """The default metrics callback: nobody listens."""


def serial_pool(function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
    """The default pool: one job after the other in this process."""
    return [function(job) for job in jobs]


class PhaseConfig(StrictModel):
    """What every phase's config has."""

    seed: SectionSeed = 0
    """Seed of everything random in this phase; empty: the run's."""
    on_fail: OnFail = "stop"
    """A failed gate: stop the run, roll back to the parent and go on, or retry once with the next seed."""


class RunPhase(Protocol):
    """The one function of a phase."""

    def __call__(
        self,
        parents: Sequence[Checkpoint],
        config: Any,
        out: Path,
        *,
        data: Dataset,
        metrics: MetricsCallback = ignore_metrics,
        pool: Pool = serial_pool,
    ) -> Checkpoint: ...


@dataclass(frozen=True)
class Phase:
    """One link of the chain."""

    name: str
    summary: str
    config: type[PhaseConfig]
    run: RunPhase

    def key(self, parents: Sequence[Checkpoint], config: PhaseConfig, data: Dataset) -> str:
        """Cache key: config, parents' and data's digests, and a fingerprint of this phase's own source."""
        return sha256_json(
            {
                "phase": self.name,
                "config": config.model_dump(mode="json", exclude={"on_fail"}),
                "parents": [parent.family_digest for parent in parents],
                "data": data.digest,
                "source": source_fingerprint(self.run.__module__),
            }
        )


def work_directory(out: Path, key: str) -> Path:
    """`<out>.work/`, emptied when it belongs to another cache key; unfinished work of this key is kept."""
    work = out.with_name(out.name + ".work")
    marker = work / "key.json"
    with explain_os_errors(work):
        if work.exists() and _key_in(marker) != key:
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            write_json(marker, {"key": key})
    return work


def is_finished(path: Path) -> bool:
    """Whether a checkpoint of the work directory is done: it was renamed there whole, and opening it verifies it."""
    return path.is_dir() and bool(open_checkpoint(path).digest)


def _key_in(marker: Path) -> str | None:
    try:
        return str(json.loads(marker.read_text())["key"])
    except (OSError, ValueError, KeyError):
        return None
