"""The capture store: every answer of every teacher, kept until it is deleted, so that none is ever paid twice.

    with CaptureStore(Path("captures.sqlite")) as store:
        if store.claim(teacher, ask) == "ours":        # nobody else asks it meanwhile
            store.put(teacher, ask, answer)            # on the disk when this returns

One row a question, under the SHA-256 of the teacher's identity and the question. A claim is written before a request
goes out: one whose process has died, or that is too old, is taken over and counted as `interrupted`, since the provider
may have charged for it. Failures are counted with their reasons, and are never answers.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from distillation.record import Message, Record
from distillation.teachers.chat_format import Malformed, read_completion, read_request
from distillation.teachers.store_file import open_database, process_started, transaction
from distillation.teachers.teacher import Answer, Ask, Failure, Teacher
from phases.storage import sha256_json

CLAIM_SECONDS = 3600.0
"""After which a claim of a process that cannot be looked at (another machine's) is over."""
Claim = Literal["ours", "answered", "taken"]
INTERRUPTED = "interrupted before an answer was stored"


@dataclass(frozen=True, slots=True)
class Attempts:
    """Requests that brought nothing, by their reason."""

    reason: str
    count: int
    wasted: int
    """Of them, attempts that the provider may have charged for."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of captured calls that came from outside."""

    added: int
    known: int
    refused: Mapping[int, str]
    """The reason for each that cannot be learnt from, by its place among the calls, from 0."""


class CaptureStore:
    """Answers in a file; of one thread. Several processes may have it open."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self.path, self._now = path, now
        self._owner = f"{socket.gethostname()}/{os.getpid()}/{process_started(os.getpid())}/{secrets.token_hex(4)}"
        self._db = open_database(path)

    def get(self, teacher: Teacher, ask: Ask) -> Answer | None:
        """The stored answer."""
        row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (ask_key(teacher.identity, ask),)).fetchone()
        return Answer(**json.loads(row[0])) if row else None

    def claim(self, teacher: Teacher, ask: Ask) -> Claim:
        """Whether this process is to ask it: `taken` while another does, `answered` when there is nothing to ask."""
        key, now = ask_key(teacher.identity, ask), self._now()
        with transaction(self._db, durable=False):
            if self._db.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone():
                return "answered"
            row = self._db.execute("SELECT owner, ends FROM claims WHERE key = ?", (key,)).fetchone()
            is_own = row is not None and row[0] == self._owner
            if row and not is_own and not self._is_over(*row):
                return "taken"
            if row and not is_own:
                self._count(key, teacher, Failure(INTERRUPTED, lasting=False, wasted=1))
            values = (key, self._owner, now, now + CLAIM_SECONDS)
            self._db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", values)
        return "ours"

    def put(self, teacher: Teacher, ask: Ask, answer: Answer) -> None:
        """Keep an answer; on the disk when this returns."""
        key = ask_key(teacher.identity, ask)
        with transaction(self._db):
            self._add(key, teacher.identity, teacher.name, teacher.licence, ask, answer, self._now())
            self._db.execute("DELETE FROM claims WHERE key = ?", (key,))

    def fail(self, teacher: Teacher, ask: Ask, failure: Failure) -> None:
        """Count a failure; the question may be asked again."""
        key = ask_key(teacher.identity, ask)
        with transaction(self._db):
            self._count(key, teacher, failure)
            self._db.execute("DELETE FROM claims WHERE key = ?", (key,))

    def attempts(self) -> tuple[Attempts, ...]:
        """What brought nothing, the most frequent first."""
        rows = self._db.execute(
            "SELECT reason, COUNT(*), SUM(wasted) FROM attempts GROUP BY reason ORDER BY COUNT(*) DESC, reason"
        )
        return tuple(Attempts(*row) for row in rows)

    def records(self, teacher: str | None = None) -> Iterator[Record]:
        """The captured calls, oldest first; of one teacher by name, or of all."""
        rows = self._db.execute(
            "SELECT key, teacher, licence, ask, answer, captured FROM answers WHERE ? IN (teacher, '') "
            "ORDER BY captured, key",
            (teacher or "",),
        )
        for key, name, licence, ask, answer, captured in rows:
            messages = tuple(Message(*message) for message in json.loads(ask)["messages"])
            said = json.loads(answer)
            more = {"capture": key, "captured": _iso(captured), "finish": said["finish"]}
            yield Record(messages, said["text"], source="capture", teacher=name, licence=licence, more=more)

    def delete_before(self, moment: datetime) -> int:
        """Remove what was captured before, from the file's bytes too; how many."""
        limit = moment.timestamp()
        with transaction(self._db):
            removed = self._db.execute("DELETE FROM answers WHERE captured < ?", (limit,)).rowcount
            self._db.execute("DELETE FROM attempts WHERE at < ?", (limit,))
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(removed)

    def push(
        self,
        calls: Iterable[Mapping[str, Any]],
        teacher: str,
        licence: str,
        identity: str = "",
        when: float | None = None,
    ) -> Pushed:
        """Keep calls that were captured elsewhere: `{"request": …, "response": …}`, bodies of an OpenAI-compatible API.

        `identity` is the teacher's whose questions they are to answer; empty: they are records only.
        """
        added, known = 0, 0
        refused: dict[int, str] = {}
        for number, call in enumerate(calls):
            try:
                ask, answer = _captured(call)
            except Malformed as error:
                refused[number] = str(error)
                continue
            whose = identity or f"pushed {teacher}"
            with transaction(self._db):
                new = self._add(ask_key(whose, ask), whose, teacher, licence, ask, answer, when or self._now())
            added, known = added + new, known + (not new)
        return Pushed(added, known, refused)

    def _add(self, key: str, identity: str, name: str, licence: str, ask: Ask, answer: Answer, at: float) -> int:
        values = (key, identity, name, licence, json.dumps(ask_json(ask)), json.dumps(asdict(answer)), at)
        return self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", values).rowcount

    def _count(self, key: str, teacher: Teacher, failure: Failure) -> None:
        values = (key, teacher.name, self._now(), failure.reason, failure.lasting, failure.wasted)
        self._db.execute("INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?)", values)

    def _is_over(self, owner: str, ends: float) -> bool:
        host, pid, started, _ = owner.rsplit("/", 3)
        is_dead = host == socket.gethostname() and process_started(int(pid)) != started
        return is_dead or self._now() >= ends

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def ask_json(ask: Ask) -> dict[str, Any]:
    """A question as it is stored and hashed."""
    messages = [[message.role, message.content] for message in ask.messages]
    return {"messages": messages, "max_tokens": ask.max_tokens, "temperature": float(ask.temperature), "seed": ask.seed}


def ask_key(identity: str, ask: Ask) -> str:
    """The SHA-256 that an answer is found by."""
    return sha256_json([identity, ask_json(ask)])


def _captured(call: Mapping[str, Any]) -> tuple[Ask, Answer]:
    request, response = call.get("request"), call.get("response")
    if not isinstance(request, Mapping) or not isinstance(response, Mapping):
        raise Malformed("not a request with its response")
    said = read_completion(response)
    tokens = said.prompt_tokens, said.completion_tokens, said.cached_tokens
    return read_request(request), Answer(said.text, *tokens, finish=said.finish)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
