"""The user's own tasks: .jsonl, .csv or .parquet rows with a prompt and an answer.

An answer of the form `worked steps #### answer` (GSM8K, arXiv 2110.14168) is taken apart at the last mark. Rows go to
train, validation and test by a hash of their content, so that adding rows moves none.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from phases.data.rows import read_rows
from phases.dataset import SPLITS
from phases.errors import DataError
from phases.strict import StrictModel
from phases.tasks.collect import Items, split_by_content
from phases.tasks.item import MARK, Item


class TaskFile(StrictModel):
    """A file of questions and answers."""

    path: str
    """A .jsonl, .csv or .parquet file, relative to the current folder."""
    name: str = ""
    """The task's name in reports; the file's own name without its ending when empty."""
    prompt: str = "question"
    """The column with the question."""
    answer: str = "answer"
    """The column with the answer, or with `steps #### answer`."""
    speciality: Literal["reasoning", "memory"] = "reasoning"
    """Which branch trains on it and which figure it counts for."""
    validation_share: float = Field(0.05, gt=0, le=0.4)
    """Share of the rows that the search may look at."""
    test_share: float = Field(0.05, gt=0, le=0.4)
    """Share of the rows that only the final judgement looks at."""
    licence: str = "not stated"
    """Goes into the data card."""


def file_items(file: TaskFile) -> Items:
    """The items of a file by split, each question once.

    Raises `DataError` for a missing, empty, undecodable or malformed file, a missing column, or an empty split.
    """
    path = Path(file.path)
    shares = {"validation": round(1e6 * file.validation_share), "test": round(1e6 * file.test_share)}
    wanted = {**shares, "train": 1_000_000 - sum(shares.values())}
    result: Items = {split: [] for split in SPLITS}
    seen: set[str] = set()
    for item in _items(file, path):
        if item.key not in seen:
            seen.add(item.key)
            result[split_by_content(item.key, wanted)].append(item)  # type: ignore[arg-type]
    if not seen:
        raise DataError(f"{path}: empty; give a file with rows")
    for split, items in result.items():
        if not items:
            raise DataError(f"{path}: {len(seen)} distinct rows leave the {split} split empty; add rows or its share")
    return result


def _items(file: TaskFile, path: Path) -> Iterator[Item]:
    for where, row in read_rows(path):
        for column in (file.prompt, file.answer):
            if column not in row:
                raise DataError(f"{path}: {where} has no column '{column}'; it has: {', '.join(map(str, row))}")
        prompt, full = _cell(row[file.prompt]), _cell(row[file.answer])
        steps, _, answer = full.rpartition(MARK.strip())
        if not prompt or not answer.strip():
            raise DataError(f"{path}: {where} has an empty question or answer; fill it in or remove the row")
        steps = steps.strip()
        yield Item(
            task=file.name or path.stem,
            speciality=file.speciality,
            prompt=prompt,
            answer=answer.strip(),
            steps=steps,
            difficulty=len(steps.splitlines()),
        )


def _cell(value: Any) -> str:
    """A cell's text: a zero is an answer, nothing is not."""
    return "" if value is None else str(value).strip()
