"""One student's training: opened, taught, written; a killed run goes on where it was and ends in the same bits.

    student = train_student(start, lesson, TrainingConfig(steps=300), Path("student"), work, agent=teacher, seed=0)

The work directory holds the state under a key of all that the result depends on; a finished result with the same key is
returned as it is.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillation.training.learner import PHASE, Learner, open_learner, ship_learner
from distillation.training.strategies import Lesson
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint
from phases.fingerprint import source_fingerprint
from phases.phase import MetricsCallback, ignore_metrics
from phases.storage import sha256_json
from phases.training.config import TrainingConfig
from phases.training.loop import Span, Trained, train


def train_student(
    start: Checkpoint,
    lesson: Lesson,
    training: TrainingConfig,
    out: Path,
    work: Path,
    *,
    agent: Checkpoint | None,
    seed: int,
    metrics: MetricsCallback = ignore_metrics,
    name: str = "student",
    texts: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Train `start` and write it to `out`, with what makes `agent` an agent (None: nothing), as `distillation`.

    Raises what training raises: `TrainingError` for a loss that is not finite, `CheckpointError` for a start that
    cannot be trained.
    """
    key = training_key(start, lesson, training, seed)
    if out.is_dir():
        found = open_checkpoint(out)
        if found.manifest.get("config", {}).get("key") == key:
            return found
    folder = work / f"{name}.{key[:16]}"
    learner = open_learner(start)
    done = fit(learner, lesson, training, folder, seed=seed, metrics=metrics, name=name)
    config = {
        "key": key,
        "lesson": lesson.digest,
        "strategy": lesson.strategy.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
    }
    parents = (start.digest, *(tutor.checkpoint.digest for tutor in lesson.tutors))
    data = tuple(part.rows.digest for part in lesson.parts)
    sizes = {"parameters": float(learner.parameters)}
    phase = PHASE if name == "student" else f"{PHASE}/{name}"
    manifest = Manifest(phase, config, seed, parents, data, {**done.metrics, **sizes})
    shipped = ship_learner(learner, out, manifest, agent, texts)
    shutil.rmtree(folder, ignore_errors=True)
    return shipped


def fit(
    learner: Learner,
    lesson: Lesson,
    training: TrainingConfig,
    folder: Path,
    *,
    seed: int,
    metrics: MetricsCallback = ignore_metrics,
    name: str = "student",
    span: Span | None = None,
) -> Trained:
    """Train a learner in place; its unfinished state lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    source = lesson.source(learner.model, seed, training.steps)
    objective = lesson.objective(learner.model)
    done = train(objective, source, training, folder, name=name, seed=seed, metrics=metrics, span=span)
    learner.model.cpu()
    return done


def training_key(start: Checkpoint, lesson: Lesson, training: TrainingConfig, seed: int) -> str:
    """What the result depends on; how often the state is saved is not part of it."""
    settings: dict[str, Any] = training.model_dump(mode="json", exclude={"save_seconds"})
    return sha256_json([start.digest, lesson.digest, settings, seed, source_fingerprint(__name__)])
