"""An agent's conversations in the examination: student and teacher talk, each by its own design, and tools run.

    criteria = conversation_criteria(student, teacher, data, 48, folder)

The conversations are those of the test split that the agent's own phases were judged by (`phases.adas.trials`). One
is right when every turn came out as it should: the right call, the right result in the reply, the fact that was told.
Small talk is graded by the persona's traits that show. Where one of them is no agent there are none.
"""

import json
from pathlib import Path

import numpy as np

from distillation.training.beside_records import is_agent
from distillation.validation.gate import Criterion
from evaluation.adas_measures import Player
from evaluation.metric import Values
from phases.adas.trials import ITEMS, LEFT_OUT, Course, Trials, first, open_course
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.storage import sha256_json, write_json

PERSONA = "persona"
BATCH = 64


def conversation_criteria(
    student: Checkpoint, teacher: Checkpoint, data: Dataset, most: int, kept: Path
) -> list[Criterion]:
    """At most `most` conversations of each kind: those with a right answer, and the persona's manner.

    What the teacher cannot do at all, no student can keep: it is no criterion. How each model did is kept in the
    folder `kept`, as it would do again: the teacher talks once for all nights.
    """
    if not most or not is_agent(teacher) or not is_agent(student):
        return []
    with open_course(teacher, data, ("test",), most) as course:
        every = course.trials["test"]
        kinds = tuple(kind for kind in every if kind not in {*ITEMS, LEFT_OUT})
        trials = first(every, kinds, most)
        ours, theirs = (_right(one, course, trials, kept) for one in (student, teacher))
    able = [kind for kind in kinds if theirs[kind].any()]
    spoken = [kind for kind in able if kind != PERSONA]
    criteria = []
    if spoken:
        student_N, teacher_N = (np.concatenate([values[kind] for kind in spoken]) for values in (ours, theirs))
        criteria.append(Criterion("conversations", student_N, teacher_N))
    if PERSONA in able:
        criteria.append(Criterion("manner", ours[PERSONA], theirs[PERSONA], kind="graded"))
    return criteria


def _right(agent: Checkpoint, course: Course, trials: Trials, kept: Path) -> dict[str, Values]:
    """How right each conversation was, by kind."""
    held = {kind: [trial.scenario.model_dump(mode="json") for trial in some] for kind, some in trials.items()}
    file = kept / f"{sha256_json([agent.digest, held])}.json"
    if not file.is_file():
        played = Player.of(agent).play(course, trials, BATCH)
        write_json(file, {kind: values.tolist() for kind, values in played.right.items()})
    return {kind: np.array(values) for kind, values in json.loads(file.read_text(encoding="utf-8")).items()}
