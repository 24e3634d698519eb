"""Records pushed over an API: nothing lost, nothing twice, whoever writes and whenever it is killed."""

import multiprocessing
from pathlib import Path

import pytest

from distillation.record import Record, asked
from distillation.records.folder import FILE, append_records, read_folder, remove_records
from phases.errors import DataError, StorageError


def some(first: int, last: int) -> list[Record]:
    return [asked(f"Frage {i}\nzwei Zeilen", completion="ä", more={"n": str(i)}) for i in range(first, last)]


def test_what_is_there_is_not_added_again(tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    assert append_records(folder, some(0, 3)) == 3
    assert append_records(folder, [*some(1, 5), *some(4, 5)]) == 2
    assert read_folder(folder) == some(0, 5)


def test_no_folder_holds_nothing(tmp_path: Path) -> None:
    assert read_folder(tmp_path / "none") == []
    assert remove_records(tmp_path / "none", {"x"}) == 0
    assert append_records(tmp_path / "empty", []) == 0


@pytest.mark.parametrize("lost", [1, 10, 80])
def test_a_line_that_a_kill_cut_off_is_written_anew(tmp_path: Path, lost: int) -> None:
    append_records(tmp_path, some(0, 3))
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-lost])
    assert read_folder(tmp_path) == some(0, 2)
    assert append_records(tmp_path, some(0, 3)) == 1
    assert (tmp_path / FILE).read_bytes() == whole


def _write(folder: Path, start: int) -> None:
    for i in range(start, start + 20, 5):
        append_records(folder, some(i, i + 5))


def test_many_writers_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, start)) for start in (0, 10, 0)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(r.key for r in read_folder(tmp_path)) == sorted(r.key for r in some(0, 30))


def test_records_can_be_removed(tmp_path: Path) -> None:
    append_records(tmp_path, some(0, 4))
    assert remove_records(tmp_path, {r.key for r in some(1, 3)}) == 2
    assert read_folder(tmp_path) == [*some(0, 1), *some(3, 4)]


@pytest.mark.parametrize(("old", "new"), [("Frage 1", "Frage 9"), ('"completion"', '"colour"'), ("{", "[")])
def test_an_altered_line_is_named(tmp_path: Path, old: str, new: str) -> None:
    append_records(tmp_path, some(0, 3))
    path = tmp_path / FILE
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace(old, new)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="line 2"):
        read_folder(tmp_path)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "inbox").write_text("")
    with pytest.raises(StorageError, match="inbox"):
        append_records(tmp_path / "inbox", some(0, 1))
