"""Retention: what a night deletes of what came from outside and of its copies, and what a resumed night keeps."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distillation.curation.config import CurationConfig
from distillation.curation.curate import curate
from distillation.curation.retention import empty_versions
from distillation.curation.versions import CARD, RECORDS, read_version, write_version
from distillation.night.workshop import ANSWERS, ARRIVED, CAPTURES, INBOX, SEALED, Workshop
from distillation.record import Message, asked
from distillation.records.folder import append_records, read_folder
from distillation.teachers.store import CaptureStore
from distillation.teachers.teacher import Answer, Ask
from phases.errors import DataError
from phases.storage import sha256_json

NOW = datetime(2026, 7, 1, tzinfo=UTC)
AGES = {"old": NOW - timedelta(days=31), "young": NOW - timedelta(days=29)}
TEACHER: Any = SimpleNamespace(name="big", identity="big model", licence="own")
CURATION = CurationConfig.model_validate({"quality": {"threshold": 0}})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """With something old and something young of every kind."""
    for age, at in AGES.items():
        append_records(tmp_path / INBOX, [asked(f"{age} question", more={ARRIVED: at.isoformat()})])
        for name in (CAPTURES, ANSWERS, SEALED):
            with CaptureStore(tmp_path / name, lambda at=at: at.timestamp()) as store:  # type: ignore[misc]
                store.put(TEACHER, Ask((Message("user", f"{age} question"),)), Answer("yes", 1, 1))
        card(tmp_path / "versions" / age, f"{age} question")
        for night in ("night-0001", "night-0002"):
            write(tmp_path / night / "work" / age / "rows.npy", at)
            write(tmp_path / night / "student" / f"{age}.safetensors", at)
        write(tmp_path / "quarantine" / f"{age}.jsonl", at)
        os.utime(tmp_path / "versions" / age / RECORDS, (at.timestamp(), at.timestamp()))
    write(tmp_path / "last.json", AGES["old"])
    return tmp_path


def write(path: Path, at: datetime) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, (at.timestamp(), at.timestamp()))


def card(folder: Path, question: str) -> None:
    """A version with an example question in its card."""
    twice = asked(question, completion="a word or two")
    write_version(folder, curate([twice, replace(twice, source="again")], [], CURATION, 0), CURATION, parent="p")


def asked_in(path: Path) -> list[str]:
    with CaptureStore(path) as store:
        return [record.prompt for record in store.records()]


def found(project: Path) -> set[str]:
    return {str(p.relative_to(project)) for p in project.rglob("*") if p.is_file() and p.suffix in (".npy", ".jsonl")}


def test_a_night_deletes_what_is_too_old_and_its_copies(project: Path) -> None:
    captured = Workshop(project, 2).captured(30, NOW)
    assert [record.prompt for record in captured] == ["young question"]
    assert [record.prompt for record in read_folder(project / INBOX)] == ["young question"]
    assert asked_in(project / ANSWERS) == asked_in(project / SEALED) == ["young question"]
    assert found(project) == {
        f"{INBOX}/{RECORDS}",
        f"versions/young/{RECORDS}",
        "night-0001/work/young/rows.npy",
        "night-0002/work/old/rows.npy",
        "night-0002/work/young/rows.npy",
        "quarantine/young.jsonl",
    }
    assert not (project / "night-0001" / "work" / "old").exists()
    for kept in ("last.json", "night-0001/student/old.safetensors", f"versions/old/{CARD}"):
        assert (project / kept).is_file()


def test_nothing_is_deleted_without_a_period(project: Path) -> None:
    before = found(project)
    assert len(Workshop(project, 2).captured(None, NOW)) == 2 and found(project) == before


def test_a_resumed_night_finds_what_it_began_with(project: Path) -> None:
    """Two days after it began both records are older than the period; by its beginning one is not."""
    first, again = (Workshop(project, 2).captured(30, NOW) for _ in range(2))
    assert [r.prompt for r in again] == [r.prompt for r in first] == ["young question"]
    assert asked_in(project / ANSWERS) == ["young question"]
    assert Workshop(project, 3).captured(30, NOW + timedelta(days=2)) == [] and asked_in(project / ANSWERS) == []


def test_a_card_outlives_its_records_without_their_text(project: Path) -> None:
    folder = project / "versions" / "old"
    assert "old question" in (folder / CARD).read_text()
    before = json.loads((folder / CARD).read_text())
    assert empty_versions(project / "versions", NOW - timedelta(days=30)) == 1
    after = json.loads((folder / CARD).read_text())
    assert "old question" not in (folder / CARD).read_text()
    assert (after["version"], after["parent"]) == (before["version"], "p")
    assert after.pop("card_sha256") == sha256_json(after)
    with pytest.raises(DataError, match="missing"):
        read_version(folder)


def test_a_version_that_was_altered_goes_whole(project: Path) -> None:
    folder = project / "versions" / "old"
    (folder / CARD).write_text("{}")
    empty_versions(project / "versions", NOW - timedelta(days=30))
    assert list(folder.iterdir()) == []
