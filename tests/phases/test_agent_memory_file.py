"""The file of a memory: kills, other processes, threads, damage, and what is left of what was forgotten."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from phases.agent.memory import Memory, MemoryConfig
from phases.agent.tool import ToolContext, ToolError, built_in
from phases.errors import StorageError

ENDLESS = """
import sys
from pathlib import Path
from phases.agent.memory import Memory
memory = Memory(Path(sys.argv[1]))
for index in range(10**6):
    memory.log("s", "user", f"episode {index}")
    memory.remember(f"fact {index}", "s")
    print(index, flush=True)
"""
HUNDRED = """
import sys
from pathlib import Path
from phases.agent.memory import Memory
with Memory(Path(sys.argv[1])) as memory:
    for index in range(100):
        memory.log(sys.argv[2], "user", f"episode {index}")
        memory.remember(f"my number is {index}", "s")
"""


def start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.sqlite"


@contextlib.contextmanager
def powerless() -> Iterator[Path]:
    """A folder that everybody may read, as a user who may not do everything."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)


def test_what_was_remembered_survives_the_kill_of_the_process(path: Path) -> None:
    with start(ENDLESS, str(path)) as process:
        assert process.stdout is not None
        printed = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        printed += [int(line) for line in process.stdout if line.endswith("\n")]
    with Memory(path) as memory:
        assert {f"fact {index}" for index in printed} <= {fact.text for fact in memory.facts()}
        assert {f"episode {index}" for index in printed} <= {one.text for one in memory.episodes()}
        assert memory.recall(f"fact {printed[-1]}", 1, ("fact",))[0].text == f"fact {printed[-1]}"


def test_two_processes_write_one_file(path: Path) -> None:
    with start(HUNDRED, str(path), "one") as first, start(HUNDRED, str(path), "two") as second:
        assert (first.wait(), second.wait()) == (0, 0)
    with Memory(path) as memory:
        assert [len(list(memory.episodes(session))) for session in ("one", "two")] == [100, 100]
        assert sum(fact.superseded_by is None for fact in memory.facts()) == 1


def test_threads_share_a_memory(path: Path) -> None:
    with Memory(path) as memory:

        def work(name: str) -> None:
            for index in range(20):
                memory.log(name, "user", f"boat {index}")
                memory.recall("boat")

        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(list(memory.episodes(name))) for name in "abc"] == [20, 20, 20]


def test_it_is_there_when_opened_again_and_so_are_uses(path: Path) -> None:
    with Memory(path) as memory:
        memory.remember("my boat is called Zumi", "monday")
        memory.recall("boat")
    memory.close()
    with Memory(path) as memory:
        (fact,) = memory.facts()
        assert (fact.text, fact.uses) == ("my boat is called Zumi", 1)


def test_old_episodes_go_when_it_is_opened(path: Path) -> None:
    with Memory(path) as memory:
        memory.log("monday", "user", "hello")
    with Memory(path, MemoryConfig(keep_days=1e-9)) as memory:
        assert list(memory.episodes()) == []


def test_the_file_is_made_with_its_folder_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "memory ?#.sqlite"
    Memory(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_was_deleted_is_not_in_the_file(path: Path) -> None:
    with Memory(path) as memory:
        for index in range(50):
            memory.log("monday", "user", f"zanzibar {index} xylophone")
            memory.remember(f"zanzibar number {index}", "monday")
        before = path.read_bytes()
        memory.delete()
        assert b"zanzibar" in before and len(path.read_bytes()) < len(before)
        assert b"zanz" not in path.read_bytes() and b"xylo" not in path.read_bytes()
        assert memory.recall("zanzibar") == list(memory.facts()) == list(memory.episodes()) == []
        memory.remember("my boat is called Zumi", "monday")
        assert memory.recall("boat")
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("by", ["ids", "query", "prune"])
def test_what_was_forgotten_is_not_in_the_file(path: Path, by: str) -> None:
    with Memory(path, MemoryConfig(keep_days=1 if by == "prune" else None)) as memory:
        for index in range(100):
            memory.log("monday", "user", f"boat number {index}")
        memory.log("monday", "user", "remember: zanzibar xylophone")
        fact = memory.remember("zanzibar xylophone", "monday")
        assert b"xylophone" in path.read_bytes()
        if by == "prune":
            memory.forget(ids=[10**6])
            memory._now = lambda at=fact.at: at.replace(year=at.year + 1)
            assert memory.prune() == 101
            memory.forget(ids=[fact.id])
        else:
            assert memory.forget(**({"ids": [fact.id]} if by == "ids" else {"query": "xylophone"})) == 2
        assert b"xylo" not in path.read_bytes() and b"zanz" not in path.read_bytes()


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 5000, os.urandom(9000), b"SQLite format 3\x00 and no more"])
def test_a_file_that_is_no_memory_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"memory\.sqlite: .*give another file") as caught:
        Memory(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_another_database_is_refused_and_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE facts (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(StorageError, match="this is not the memory of an agent; give another file"):
        Memory(path)
    assert path.read_bytes() == before


def test_a_memory_of_another_version_is_refused(path: Path) -> None:
    Memory(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(StorageError, match="a memory of version 7, and this forge knows 1"):
        Memory(path)


def test_damage_is_one_line(path: Path) -> None:
    with Memory(path) as memory:
        for index in range(100):
            memory.log("monday", "user", f"boat number {index}")
    whole = path.read_bytes()
    refused = 0
    for page in range(len(whole) // 4096):
        path.write_bytes(whole[: 4096 * page] + b"\xff" * 4096 + whole[4096 * (page + 1) :])
        try:
            with Memory(path) as memory:
                list(memory.episodes())
                memory.recall("boat number 7")
                memory.log("monday", "user", "more")
        except StorageError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > len(whole) // 4096 // 2  # pages in the middle of an index may not be looked at


def test_a_truncated_file_is_one_line(path: Path) -> None:
    with Memory(path) as memory:
        for index in range(100):
            memory.log("monday", "user", f"boat number {index}")
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(StorageError, match="the memory is damaged; restore it"):
        Memory(path)


def test_a_read_only_file_is_one_line() -> None:
    with powerless() as folder:
        path = folder / "memory.sqlite"
        Memory(path).close()
        path.chmod(0o400)
        with pytest.raises(StorageError, match="cannot be written to .Permission denied.; give another file"):
            Memory(path)


def test_a_folder_that_became_read_only_is_one_line_and_the_memory_reads_on() -> None:
    with powerless() as folder, Memory(folder / "inner" / "memory.sqlite") as memory:
        memory.remember("my boat is called Zumi", "monday")
        (folder / "inner").chmod(0o500)
        with pytest.raises(StorageError, match="its folder is read-only; give its user the right"):
            memory.log("monday", "user", "hello")
        with pytest.raises(ToolError, match="its folder is read-only; give its user the right"):
            built_in("remember").run({"fact": "plum"}, ToolContext(memory=memory))
        assert [one.text for one in memory.recall("boat")] == ["my boat is called Zumi"]
        (folder / "inner").chmod(0o700)


@pytest.mark.parametrize("name", ["", "file/memory.sqlite"])
def test_a_path_that_can_be_no_file_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written to .*give another file"):
        Memory(tmp_path / name)


def test_a_writer_that_is_never_done_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phases.agent.memory_file._WAIT_S", 0.05)
    with Memory(path) as memory, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another process is writing to this memory; try again"):
            memory.log("monday", "user", "hello")
        other.execute("ROLLBACK")
        assert memory.log("monday", "user", "hello") == 1
