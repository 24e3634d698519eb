"""A stage: a phase together with what it is given, run at most once for the same inputs.

The proof that a result may be reused is `<out>.key.json`. It is written with the cache key *before* the phase runs,
when no result of another key is left at `out`; a checkpoint that stands there later was therefore made under that key,
even if the process died in the moment between finishing and saying so.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from phases.checkpoint import Checkpoint, open_checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.phase import MetricsCallback, Phase, PhaseConfig, Pool, ignore_metrics, serial_pool
from phases.storage import explain_os_errors, write_json
from phases.strict import StrictModel
from phases.training.processes import on_main

Say = Callable[[str], None]


class CheckpointRef(StrictModel):
    """A checkpoint by place and proof: what tasks hand to each other, never a model."""

    path: str
    digest: str
    """Digest over the checkpoint and its siblings."""


def reference(checkpoint: Checkpoint) -> CheckpointRef:
    """The reference of a checkpoint."""
    return CheckpointRef(path=str(checkpoint.path), digest=checkpoint.family_digest)


class StageRecord(StrictModel):
    """`<out>.key.json`."""

    key: str
    digest: str | None = None
    """Family digest of the finished checkpoint; empty while the phase runs."""
    seconds: float | None = None
    """What the phase took, all interrupted attempts after a resume left out."""


@dataclass(frozen=True)
class Stage:
    """One phase, its config, its parents and data, and where its result goes."""

    phase: Phase
    config: PhaseConfig
    parents: tuple[Checkpoint, ...]
    data: Dataset
    out: Path

    @cached_property
    def key(self) -> str:
        """The phase's cache key."""
        return self.phase.key(self.parents, self.config, self.data)

    @property
    def record_path(self) -> Path:
        """Where the record is kept."""
        return self.out.with_name(f"{self.out.name}.key.json")

    def record(self) -> StageRecord | None:
        """The record, when there is a readable one of this key."""
        try:
            record = StageRecord.model_validate(json.loads(self.record_path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None
        return record if record.key == self.key else None

    def finished(self, say: Say = lambda line: None) -> Checkpoint | None:
        """The finished result of exactly these inputs, verified; a damaged one is reported and not used."""
        record = self.record()
        if record is None or not self.out.is_dir():
            return None
        try:
            checkpoint = open_checkpoint(self.out)
        except CheckpointError as error:
            say(f"{self.phase.name}: {error}; making it again")
            return None
        return checkpoint if record.digest in (None, checkpoint.family_digest) else None

    def run(self, metrics: MetricsCallback = ignore_metrics, pool: Pool = serial_pool) -> Checkpoint:
        """Run the phase (it continues its own unfinished work) and record that it is done."""
        on_main(self._claim)
        began = time.monotonic()
        with explain_os_errors(self.out):
            made = self.phase.run(self.parents, self.config, self.out, data=self.data, metrics=metrics, pool=pool)
        return on_main(lambda: self._record(made.path, time.monotonic() - began))

    def _record(self, path: Path, seconds: float) -> Checkpoint:
        """Verify what was made and say under which key, and that it is done."""
        checkpoint = open_checkpoint(path)
        record = StageRecord(key=self.key, digest=checkpoint.family_digest, seconds=round(seconds, 3))
        write_json(self.record_path, record.model_dump())
        shutil.rmtree(self.out.with_name(f"{self.out.name}.work"), ignore_errors=True)
        return checkpoint

    def _claim(self) -> None:
        """Leave no result of other inputs at `out`, then record whose result the next one is."""
        with explain_os_errors(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            if self.out.is_dir():
                shutil.rmtree(self.out)
        write_json(self.record_path, StageRecord(key=self.key).model_dump())

    def with_next_seed(self) -> "Stage":
        """The same stage with the next seed, beside the first."""
        config: Any = self.config.model_copy(update={"seed": self.config.seed + 1})
        return replace(self, config=config, out=self.out.with_name(f"{self.out.name}.retry"))
