"""Judging a stage and deciding what stays: the new checkpoint, or its parent.

A verdict is kept beside the checkpoint under its own cache key (what was judged, on what, how, by which code), so that
a resumed run does not judge again, and never shows an old verdict for a new model.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from evaluation import judge_evomerge
from evaluation.config import EvaluationConfig
from evaluation.judgement import Judgement
from evaluation.judges import JUDGES
from evaluation.report import Status
from flows.stage import Stage
from phases.checkpoint import Checkpoint, open_checkpoint
from phases.fingerprint import source_fingerprint
from phases.storage import sha256_json, write_json

INCUMBENTS = {"evomerge": judge_evomerge.incumbent}
"""What a phase falls back to where that is not simply its first parent."""


@dataclass(frozen=True, repr=False)
class Outcome:
    """What became of a stage."""

    stage: Stage
    status: Status
    made: Checkpoint
    """What the phase made, good or not."""
    kept: Checkpoint | None
    """What goes on: the result, the parent it was rolled back to, or nothing."""
    judgement: Judgement
    seconds: float | None
    """What the phase took when it was run."""
    reused: bool = False
    """Whether an earlier command made it."""

    def __repr__(self) -> str:
        return f"{self.stage.phase.name}: {self.status}"  # Prefect logs what a failed task's state carries

    @property
    def lineage(self) -> dict[str, object]:
        """What the checkpoint is and came from, as tags."""
        return {
            "status": self.status,
            "checkpoint.path": self.made.path.resolve(),
            "checkpoint.digest": self.made.digest,
            "kept.digest": "" if self.kept is None else self.kept.digest,
            "parents": " ".join(parent.digest for parent in self.stage.parents),
            "data.digest": self.stage.data.digest,
        }


def judge(stage: Stage, checkpoint: Checkpoint, config: EvaluationConfig) -> Judgement:
    """The verdict on a checkpoint and its parents, all opened again from the disk."""
    path = stage.out.with_name(f"{stage.out.name}.judgement.json")
    key = judgement_key(stage, checkpoint, config)
    known = _read(path, key)
    if known is not None:
        return known
    parents = [open_checkpoint(parent.path) for parent in stage.parents]
    judgement = JUDGES[stage.phase.name](open_checkpoint(checkpoint.path), parents, stage.data, config)
    write_json(path, {"key": key, "judgement": judgement.model_dump(mode="json")})
    return judgement


def judgement_key(stage: Stage, checkpoint: Checkpoint, config: EvaluationConfig) -> str:
    """Everything that a verdict depends on."""
    parents = [parent.family_digest for parent in stage.parents]
    what = [stage.phase.name, checkpoint.family_digest, parents, stage.data.digest]
    source = source_fingerprint(f"evaluation.judge_{stage.phase.name}")
    return sha256_json([*what, config.model_dump(mode="json"), source])


def _read(path: Path, key: str) -> Judgement | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Judgement.model_validate(content["judgement"]) if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none yet, or not whole: it is reached again


def settle(stage: Stage, made: Checkpoint, judgement: Judgement, reused: bool = False) -> Outcome:
    """Keep the result, roll back to the incumbent, or stop, as verdict and policy say.

    A first phase has nothing to roll back to: it stops. So does a retry that failed again.
    """
    record = stage.record()
    seconds = None if record is None else record.seconds
    if judgement.passed:
        return Outcome(stage, "passed", made, made, judgement, seconds, reused)
    if stage.config.on_fail == "rollback" and stage.parents:
        return Outcome(stage, "rolled_back", made, _incumbent(stage, made), judgement, seconds, reused)
    return Outcome(stage, "failed", made, None, judgement, seconds, reused)


def _incumbent(stage: Stage, made: Checkpoint) -> Checkpoint:
    choose = INCUMBENTS.get(stage.phase.name)
    return choose(made, stage.parents) if choose else stage.parents[0]
