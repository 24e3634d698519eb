"""How many questions are worth an answer: short trainings on ever more of them, until the learning curve is flat.

    curve, share = data_curve(tutors, answered, config, work, seed=0, validation=held_out)

Each subset has a folder of its own, with its rows, caches and result: a killed curve goes on where it was.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distillation.record import Record
from distillation.training.data_size import DataSize, DataSizeConfig, Values, learning_curve
from distillation.training.distil_config import DistilConfig
from distillation.training.held_out import HeldOut
from distillation.training.learner import open_learner
from distillation.training.lessons import Lessons
from distillation.training.strategies import Tutor
from distillation.training.train import fit, training_key
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.storage import sha256_json, write_json


def data_curve(
    tutors: Sequence[Tutor],
    answered: Callable[[float], Sequence[Record]],
    config: DistilConfig,
    size: DataSizeConfig,
    work: Path,
    *,
    seed: int,
    validation: Sequence[Record],
    data: Dataset | None = None,
) -> tuple[DataSize, float]:
    """The curve, and the share of the questions that is enough. All students begin as the first subset's."""
    lessons = Lessons(tuple(tutors), (), config, work, work, seed, data)
    exam, starts = HeldOut(validation, lessons.tokenizer), list[Checkpoint]()

    def train_on(records: Sequence[Record], share: float) -> tuple[Values, Values]:
        folder = work / f"{share:g}"
        own = replace(lessons, records=tuple(records), work=folder)
        lesson = own.lesson(config.strategy)
        if not starts:
            starts.append(own.start(lesson))
        short = own.training.model_copy(update={"steps": size.steps})
        key = sha256_json([training_key(starts[0], lesson, short, seed), exam.digest])
        done = folder / f"exam.{key[:16]}.json"
        if not done.is_file():
            learner = open_learner(starts[0])
            fit(learner, lesson, short, folder / done.stem, seed=seed, name=f"curve_{share:g}")
            seen = exam.measure(learner.model)
            write_json(done, [seen.nats_N.tolist(), seen.right_N.tolist()])
        nats, right = json.loads(done.read_text(encoding="utf-8"))
        return np.array(nats), np.array(right)

    return learning_curve(size, seed, answered, train_on)
