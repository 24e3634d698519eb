"""Memory that lasts: what happened (episodes) and what is known (facts), in one SQLite file.

    with Memory(Path("memory.sqlite")) as memory:
        memory.log("monday", "user", "remember: my boat is called Zumi")
        memory.remember("my boat is called Zumi", "monday")
        memory.recall("what is my boat called?")[0].text       # "my boat is called Zumi"

Episodic and semantic memory are Tulving's (1972) two kinds. `phases.agent.ranking` says what comes back,
`phases.agent.wording` which facts are one, `phases.agent.forgetting` what goes.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import Field

from phases.agent import forgetting, memory_export, wording
from phases.agent.memory_file import MemoryFile
from phases.agent.memory_records import (
    EPISODE_COLUMNS,
    FACT_COLUMNS,
    Episode,
    Fact,
    MemoryKind,
    Recalled,
    episode_of,
    fact_of,
    stamp,
)
from phases.agent.ranking import Recency, best_of, rank
from phases.errors import DataError
from phases.strict import StrictModel

__all__ = ["Episode", "Fact", "Memory", "MemoryConfig", "MemoryKind", "Recalled"]
_PAGE = 500


class MemoryConfig(StrictModel):
    """What a memory keeps, for how long, and what comes back."""

    half_life_days: float = Field(30.0, gt=0)
    """Age at which a text counts half as much."""
    recency_floor: float = Field(0.25, ge=0, le=1)
    """A fact's recency is never less: what happened fades, what is known does not."""
    recall_limit: int = Field(3, ge=1)
    """Texts that come back when nothing else is asked for."""
    capacity_facts: int = Field(10_000, ge=1)
    """Facts that are kept. Beyond it replaced ones go first, then the little used and old."""
    keep_days: float | None = Field(None, gt=0)
    """Days that episodes are kept, seen to whenever the memory is opened; empty: for ever."""


def _now() -> datetime:
    return datetime.now(UTC)


def keepable(text: str) -> tuple[str, str]:
    """A fact as it is kept, and its key. Raises `DataError` for an empty one."""
    text = wording.clean(text).strip()
    key = wording.fact_key(text)
    if not key:
        raise DataError("a fact without words; say what to remember")
    return text, key


class Memory:
    """A memory, open until `close`. `path`: its file, made when new; None: this process alone has it.

    Several processes may use one file, and threads one memory. Raises `StorageError` (one line) for a file that is no
    memory, is damaged, or cannot be written to; any method may raise it when the disk is full or the file is damaged.
    """

    def __init__(
        self, path: Path | None, config: MemoryConfig | None = None, now: Callable[[], datetime] = _now
    ) -> None:
        self.path, self.config, self._now = path, config or MemoryConfig(), now
        # Uses are counted here until the next write: recalling must neither wait for the disk nor for other writers.
        self._used: dict[int, tuple[int, str]] = {}
        self._file = MemoryFile(path)
        if self.config.keep_days is not None:
            self.prune()

    def log(self, session: str, role: str, text: str) -> int:
        """Keep what was said; the number of the episode, which is on the disk when this returns."""
        row = (stamp(self._now()), *(wording.clean(part) for part in (session, role, text)))
        add = "INSERT INTO episodes (at, session, role, text) VALUES (?, ?, ?, ?) RETURNING id"
        with self._writing() as db:
            return int(db.execute(add, row).fetchone()[0])

    def remember(self, text: str, session: str) -> Fact:
        """Keep a fact; it is on the disk when this returns.

        An equal fact (but for case, spaces and final stop) is refreshed. One that gives another value to the same
        statement (`wording.statement`) is replaced: it no longer comes back, but is still exported. Raises `DataError`
        for an empty text.
        """
        text, key = keepable(text)
        session = wording.clean(session)
        about, at = wording.statement(text) or key, stamp(self._now())
        twin = "SELECT id FROM facts WHERE about = ? AND key = ? AND superseded_by IS NULL"
        with self._writing() as db:
            known = db.execute(twin, (about, key)).fetchone()
            if known:
                db.execute("UPDATE facts SET at = ?, session = ? WHERE id = ?", (at, session, known[0]))
            number = known[0] if known else self._add(db, (at, session, text, key, about))
            return fact_of(db.execute(f"SELECT {FACT_COLUMNS} FROM facts WHERE id = ?", (number,)).fetchone())

    def _add(self, db: sqlite3.Connection, row: tuple[str, str, str, str, str]) -> int:
        """Insert a fact, mark what it replaces, and make room for it; its number."""
        add = (
            "INSERT INTO facts (at, session, text, key, about, episode) "
            "VALUES (?1, ?2, ?3, ?4, ?5, (SELECT max(id) FROM episodes WHERE session = ?2)) RETURNING id"
        )
        made = int(db.execute(add, row).fetchone()[0])
        replace = "UPDATE facts SET superseded_by = ?1 WHERE about = ?2 AND superseded_by IS NULL AND id != ?1"
        db.execute(replace, (made, row[4]))
        forgetting.make_room(db, self.config.capacity_facts, self.config.half_life_days, newest=made)
        return made

    def recall(
        self,
        query: str,
        limit: int | None = None,
        kinds: Sequence[MemoryKind] = ("fact", "episode"),
        note: bool = True,
    ) -> list[Recalled]:
        """The texts that answer a query best, best first (`phases.agent.ranking`). Any text is a safe query.

        `note`: count that they were of use.
        """
        wanted = wording.query_words(query)
        if not wanted:
            return []
        now = self._now()
        recency = Recency(now, timedelta(days=self.config.half_life_days), self.config.recency_floor)
        with self._file.reading() as db:
            found = [one for kind in dict.fromkeys(kinds) for one in rank(db, kind, wanted, recency)]
        best = best_of(found, self.config.recall_limit if limit is None else limit)
        if note:
            self.note(best)
        return best

    def note(self, found: Sequence[Recalled]) -> None:
        """Count that what came back was of use: facts that nobody needs go first."""
        for one in found:
            if one.kind == "fact":
                count, _ = self._used.get(one.id, (0, ""))
                self._used[one.id] = (count + 1, stamp(self._now()))

    def facts(self) -> Iterator[Fact]:
        """Every fact in the order of their numbers, replaced ones among them (`superseded_by`)."""
        with self._writing():
            pass  # so that the uses are up to date
        return (fact_of(row) for row in self._rows(f"SELECT {FACT_COLUMNS} FROM facts WHERE id > ?", ()))

    def episodes(self, session: str | None = None, since: datetime | None = None) -> Iterator[Episode]:
        """What was said, in its order: of one session or of all, from a time on or ever."""
        conditions, values = "", []
        for condition, value in (("session = ?", session), ("at >= ?", stamp(since) if since else None)):
            if value is not None:
                conditions += f" AND {condition}"
                values.append(value)
        query = f"SELECT {EPISODE_COLUMNS} FROM episodes WHERE id > ?{conditions}"
        return (episode_of(row) for row in self._rows(query, values))

    def _rows(self, query: str, values: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Rows of a query, a page at a time: nobody waits for whoever reads slowly."""
        last = 0
        while True:
            with self._file.reading() as db:
                page = db.execute(f"{query} ORDER BY id LIMIT {_PAGE}", (last, *values)).fetchall()
            yield from page
            if len(page) < _PAGE:
                return
            last = page[-1][0]

    def forget(self, ids: Sequence[int] | None = None, query: str | None = None, before: datetime | None = None) -> int:
        """Remove facts and episodes, from the file too; how many.

        They have to meet every condition that is given: be one of these facts, have every word of the query, be older.
        With a fact go those that it replaced, and episodes that say any of them word for word. Raises `DataError` when
        no condition is given.
        """
        if ids is None and query is None and before is None:
            raise DataError("nothing said of what to forget; give ids, a query or a time, or delete the memory whole")
        with self._writing() as db:
            return forgetting.forget(db, ids, query, stamp(before) if before else None)

    def prune(self) -> int:
        """Remove episodes older than `keep_days` and facts beyond `capacity_facts`, from the file too; how many."""
        oldest = stamp(self._now() - timedelta(days=self.config.keep_days)) if self.config.keep_days else ""
        with self._writing() as db:
            removed = forgetting.drop_old_episodes(db, oldest)
            removed += forgetting.make_room(db, self.config.capacity_facts, self.config.half_life_days)
            return forgetting.settled(db, removed)

    def export(self, path: Path) -> int:
        """Write everything as JSON lines, replaced facts and times too; how many facts and episodes."""
        with self._writing() as db:
            return memory_export.export(db, path)

    def import_(self, path: Path) -> int:
        """Add what `export` wrote and is not here; how many. Raises `DataError` for a wrong line, and adds nothing."""
        with self._writing() as db:
            return memory_export.import_(db, path)

    def delete(self) -> None:
        """Forget everything. The file stays, empty; what a disk keeps of blocks that were freed is beyond its reach."""
        self._used.clear()
        self._file.erase()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._used and not self._file.closed:
            with contextlib.closing(self._file), self._writing():
                return
        self._file.close()

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction for writing, which also adds the uses counted since the last one."""
        with self._file.writing() as db:
            used, self._used = self._used, {}
            db.executemany(
                "UPDATE facts SET uses = uses + ?, last_used = ? WHERE id = ?",
                [(count, at, number) for number, (count, at) in used.items()],
            )
            yield db
