"""Where a night's records come from, and which of them are sealed: the test set that no student is trained on.

Four sources: the questions of a finished forge run, the user's files, what was pushed into the project's inbox, and
captured teacher calls. A run brings its own test split. Own records are divided by the hash of their question, so a
question that was sealed once is sealed every night, whatever file it comes in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from distillation.curation.synthesis import Synthesis
from distillation.night.forged import ForgedRun, open_run
from distillation.record import GIVEN, Record
from distillation.records.folder import read_folder
from distillation.records.reading import ReadRecords, RecordSource, read_source
from distillation.teachers.licences import check_licence
from phases.errors import ConfigError, DataError
from phases.strict import StrictModel

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Part = Literal["train", "validation", "test"]


class Questions(StrictModel):
    """How many of a run's task items; empty: all."""

    reasoning: int | None = Field(None, ge=0)
    """Of tasks with worked steps."""
    memory: int | None = Field(None, ge=0)
    """Of recall and needles."""
    copying: int | None = Field(None, ge=0)
    """Of words that are to be said again."""


class DataConfig(StrictModel):
    """What a project's students learn from and are tested on."""

    run: str | None = Field("laptop", pattern=NAME)
    """A finished run of the forge, whose training questions and text are used and whose test split is the sealed test;
    empty: own records only."""
    questions: Questions = Questions(reasoning=2400, memory=2000, copying=600)
    """Training questions of the run."""
    sealed: Questions = Questions(copying=128)
    """Test questions of the run."""
    checked: Questions = Questions(reasoning=192, memory=192, copying=0)
    """Validation questions of the run, by which settings and data size are chosen."""
    ask: float = Field(0.5, ge=0, le=1)
    """Share of the run's questions that teachers answer; the others, and those answered wrongly, keep the answers that
    they come with."""
    files: tuple[RecordSource, ...] = ()
    """Own records: JSONL, CSV, Parquet."""
    inbox: bool = True
    """Take what was pushed into the project's inbox."""
    captures: bool = True
    """Take calls of teachers that were captured from outside."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """Share of own questions that are sealed for the test."""
    validation_share: float = Field(0.1, ge=0, lt=1)
    """Share of own questions by which settings are chosen."""
    wanted: dict[str, int] = Field({})
    """How many questions a group should have; what it lacks is written by the first teacher, as new questions."""
    synthesis: Synthesis = Synthesis()
    """How those are asked for."""
    retention_days: int | None = Field(None, ge=1)
    """Days after which a night deletes, each by its own date: records of the inbox, captured calls, and their copies:
    answers of teachers and students (what is asked again is paid again), the records of data set versions (their cards
    stay), the work folders of earlier nights, rows that were set aside. A copy counts from when it was made, so the
    last one of a record goes within twice the period. A night that is taken up again counts from its first attempt and
    keeps its own work. Students, reports, the ledger and your own files stay. Empty: everything is kept."""


@dataclass(frozen=True)
class Gathered:
    """A night's records before curation."""

    train: list[Record]
    validation: list[Record]
    sealed: list[Record]
    run: ForgedRun | None
    rejected: dict[str, int] = field(default_factory=dict)
    """Rows of files that are no records, by reason."""


def gather(config: DataConfig, out: Path, project: Path, captured: Sequence[Record]) -> Gathered:
    """Read every source. `out`: folder of all runs; `project`: of this project; rejected rows go to its `quarantine/`.

    Raises `DataError` when there is nothing to learn from or nothing to test on, and for files that cannot be read.
    """
    run = None if config.run is None else open_run(out / config.run)
    parts: dict[Part, list[Record]] = {"train": [], "validation": [], "test": []}
    if run is not None:
        parts["train"] = _asked(run.questions("train", config.questions.model_dump()), config.ask)
        parts["validation"] = run.questions("validation", config.checked.model_dump())
        parts["test"] = run.questions("test", config.sealed.model_dump())
    read = [read_source(source, project / "quarantine" / f"{i}.jsonl") for i, source in enumerate(config.files)]
    own = [record for one in read for record in one.records]
    own += read_folder(project / "inbox") if config.inbox else []
    refused: dict[str, int] = {}
    own += _allowed(captured, refused) if config.captures else []
    for record in own:
        parts[_part(record, config)].append(record)
    for name, what in (("train", "learn from"), ("test", "test a student on")):
        if not parts[name]:  # type: ignore[index]
            raise DataError(f"{project.name}: no records to {what}; set data.run or data.files, or push some")
    return Gathered(parts["train"], parts["validation"], parts["test"], run, _reasons(read) | refused)


def _allowed(captured: Sequence[Record], refused: dict[str, int]) -> list[Record]:
    """Captured answers that may be learnt from, by the licence that they came with; others are counted."""
    verdicts: dict[tuple[str, str], str] = {}
    for who in {(record.teacher, record.licence) for record in captured}:
        try:
            check_licence(*who, confirmed=False)
            verdicts[who] = ""
        except ConfigError as error:
            verdicts[who] = str(error)
    for record in captured:
        why = verdicts[record.teacher, record.licence]
        if why:
            refused[why] = refused.get(why, 0) + 1
    return [record for record in captured if not verdicts[record.teacher, record.licence]]


def _part(record: Record, config: DataConfig) -> Part:
    """By the question's hash: the same every night."""
    place = int(record.prompt_key[:12], 16) / 16**12
    if place < config.test_share:
        return "test"
    return "validation" if place < config.test_share + config.validation_share else "train"


def _asked(records: Sequence[Record], share: float) -> list[Record]:
    """Those whose hash says so put their answer aside, so that a teacher gives one."""

    def is_asked(record: Record) -> bool:
        return int(record.prompt_key[-12:], 16) / 16**12 < share

    return [_without_answer(record) if is_asked(record) else record for record in records]


def _without_answer(record: Record) -> Record:
    return replace(record, completion="", more={GIVEN: record.completion})


def _reasons(read: Sequence[ReadRecords]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in read:
        for reason, count in one.reasons.items():
            found[reason] = found.get(reason, 0) + count
    return found
