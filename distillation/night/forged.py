"""What a finished run of the forge gives to distillation: its model before compression, its questions, its sealed test.

    run = open_run(Path("checkpoints/laptop"))
    run.teacher, run.questions("train", {"reasoning": 2000}), run.data

Questions are the run's own task items. The teacher has learnt from the training items; the test items are what nobody
has learnt from, so teacher and student are compared on those alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distillation.record import Record, asked
from evaluation.language import spread
from evaluation.report import read_report
from phases.dataset import Dataset, Split, open_dataset
from phases.errors import InputError
from phases.tasks.item import Item

COMPRESSED = "compression"
"""The phase whose parent is the teacher."""


@dataclass(frozen=True)
class ForgedRun:
    """A run's folder, as far as distillation needs it."""

    folder: Path
    data: Dataset

    @property
    def teacher(self) -> Path:
        """The checkpoint that the last phase before compression handed on.

        Raises `InputError` where the run has no report or no such phase was reached.
        """
        for phase in reversed(read_report(self.folder).phases):
            if phase.phase != COMPRESSED and phase.checkpoint is not None:
                said = Path(phase.checkpoint.path)
                moved = self.folder / said.name  # the run's folder may have been moved as a whole
                return moved if moved.is_dir() else said
        raise InputError(f"{self.folder}: no phase before compression has a model; finish the run, or name a teacher")

    def questions(self, split: Split, wanted: Mapping[str, int | None]) -> list[Record]:
        """So many questions of each speciality (None: all), evenly spread over the split."""
        chosen: list[Record] = []
        for speciality, most in wanted.items():
            items = self.data.items(split, speciality)
            hardest = _hardest(items)
            picked = [items[i] for i in spread(len(items), most)]
            chosen += [to_record(item, edge=item.difficulty >= hardest[item.task] > 0) for item in picked]
        return chosen


def open_run(folder: Path) -> ForgedRun:
    """A run with prepared data. Raises `InputError` where there is none."""
    if not (folder / "data").is_dir():
        raise InputError(
            f"{folder}: not a run of the forge; make one with `forge run`, or set data.run to another (null: none)"
        )
    return ForgedRun(folder, open_dataset(folder / "data"))


def to_record(item: Item, *, edge: bool = False) -> Record:
    """A task item as a record: worked steps stand before the answer, as the forge's phases learn it."""
    return asked(
        item.prompt,
        completion=item.completion,
        reference=item.answer,
        group=item.task,
        source=f"run:{item.speciality}",
        licence=item.licence,
        edge=edge,
    )


def _hardest(items: list[Item]) -> dict[str, int]:
    """The highest difficulty of each task."""
    found: dict[str, int] = {}
    for item in items:
        found[item.task] = max(found.get(item.task, 0), item.difficulty)
    return found
