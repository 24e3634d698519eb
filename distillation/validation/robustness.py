"""Does the student hold where the teacher holds: the same questions put differently, and the questions at the edges.

Both answer the same changed questions, and the student is compared with the teacher on them: a teacher that a typo
throws off has nothing that the student would have to keep. By default these are guards (`gate.py`): each would take as
many items as the main criterion to be shown, so a student is stopped by what it is shown to lose.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from distillation.record import Record
from distillation.validation.gate import Criterion
from distillation.validation.grading import kind_of, values
from distillation.validation.transformations import BY_LETTER, Transformation, transform
from evaluation.metric import Values
from phases.strict import StrictModel

Answer = Callable[[Sequence[Record]], list[str]]
"""One answer a record, in order."""


class RobustnessConfig(StrictModel):
    """How the questions are changed."""

    transformations: tuple[Transformation, ...] = ("typos", "casing", "white_space", "framing", "length", "paraphrase")
    """What is done to them, each alone."""
    letter_groups: tuple[str, ...] = ()
    """Groups whose questions are about letters: no typos and no casing there."""
    words: int = Field(60, ge=1)
    """Words of foreign text that `length` puts before a question."""
    ratio: float = Field(0.95, gt=0, le=1)
    """Share of the teacher that a student keeps under each."""
    role: Literal["gate", "guard"] = "guard"
    """`gate`: has to be shown; `guard`: must not be shown to be lost."""
    edge: float = Field(0.1, gt=0, lt=1)
    """Share of the questions that count as the longest, and as the shortest."""
    seed: int = Field(0, ge=0)
    """Of the changes."""


def changed(
    records: Sequence[Record], config: RobustnessConfig, filler: Sequence[str] = ()
) -> dict[Transformation, list[Record]]:
    """The records under each transformation, without those that it leaves as they are."""
    found = {}
    for name in config.transformations:
        open_ = [r for r in records if name not in BY_LETTER or r.group not in config.letter_groups]
        pairs = [(r, transform(r, name, config.seed, filler, config.words)) for r in open_]
        found[name] = [new for old, new in pairs if new is not old]
    return found


def robustness_criteria(
    records: Sequence[Record], student: Answer, teacher: Answer, config: RobustnessConfig, filler: Sequence[str] = ()
) -> list[Criterion]:
    """A criterion a transformation; one that changed no record is left out. Records without a reference are graded by
    the teacher's answer to the question as it was."""
    return [
        Criterion(
            name=f"robustness/{name}",
            student=values(new, student(new)),
            teacher=values(new, teacher(new)),
            kind=kind_of(new),
            role=config.role,
            ratio=config.ratio,
        )
        for name, new in changed(records, config, filler).items()
        if new
    ]


def edge_cases(records: Sequence[Record], share: float) -> Mapping[str, npt.NDArray[np.intp]]:
    """Indices of the records that were marked, the longest and shortest questions, and the rarest group."""
    lengths = np.array([sum(len(m.content) for m in r.messages) for r in records])
    order, some = np.argsort(lengths, kind="stable"), max(1, round(share * len(records)))
    groups = Counter(r.group for r in records)
    found = {"marked": np.flatnonzero([r.edge for r in records])}
    if len(records) > 1 and lengths.min() < lengths.max():
        found |= {"longest": np.sort(order[-some:]), "shortest": np.sort(order[:some])}
    if len(groups) > 1:
        rarest = min(groups, key=lambda group: (groups[group], group))
        found[f"rarest group, {rarest}"] = np.flatnonzero([r.group == rarest for r in records])
    return {name: index for name, index in found.items() if len(index)}


def edge_criteria(
    records: Sequence[Record], student: Values, teacher: Values, config: RobustnessConfig
) -> list[Criterion]:
    """A guard for each kind of edge case, out of the values that the main criteria have anyway."""
    return [
        Criterion(
            name=f"edge/{name}",
            student=student[index],
            teacher=teacher[index],
            kind=kind_of([records[i] for i in index]),
            role="guard",
            ratio=config.ratio,
        )
        for name, index in edge_cases(records, config.edge).items()
    ]
