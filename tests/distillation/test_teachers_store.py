"""The capture store: kept once, claimed once, failures never kept, other people's files refused."""

import multiprocessing
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.record import Message, Record
from distillation.teachers.store import CLAIM_SECONDS, INTERRUPTED, CaptureStore, ask_key
from distillation.teachers.teacher import Answer, Ask, Failure
from phases.errors import DataError, StorageError

TEACHER: Any = SimpleNamespace(name="big", identity="big model", licence="own")
ANSWER = Answer("four", 5, 1, 2, 0.25, 0.125, "stop", 1)


def ask(text: str = "2+2?", **options: Any) -> Ask:
    return Ask((Message("user", text),), **options)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_store(tmp_path: Path, clock: Clock) -> Callable[[], CaptureStore]:
    return lambda: CaptureStore(tmp_path / "captures.sqlite", clock)


def test_an_answer_is_there_again(open_store: Callable[[], CaptureStore]) -> None:
    with open_store() as store:
        assert store.get(TEACHER, ask()) is None and store.claim(TEACHER, ask()) == "ours"
        store.put(TEACHER, ask(), ANSWER)
    with open_store() as store:
        assert store.get(TEACHER, ask()) == ANSWER and store.claim(TEACHER, ask()) == "answered"


def test_everything_that_an_answer_depends_on_is_in_its_key() -> None:
    conversation = Ask((Message("system", "s"), Message("user", "2+2?")))
    asks = [ask(), ask("2+3?"), ask(seed=1), ask(temperature=0.5), ask(max_tokens=9), conversation]
    keys = {ask_key(identity, one) for one in asks for identity in ("a", "b")}
    assert len(keys) == 12 and ask_key("a", ask(temperature=0)) == ask_key("a", ask(temperature=0.0))


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=9), st.text(max_size=5))
def test_any_text_can_be_asked_and_kept(question: str, text: str) -> None:
    with CaptureStore(Path(":memory:")) as store:
        store.put(TEACHER, ask(question), Answer(text, 1, 1))
        (record,) = store.records()
        assert (record.prompt, record.completion) == (question, text)


def test_a_claim_is_one_store_s_until_it_is_settled(open_store: Callable[[], CaptureStore]) -> None:
    with open_store() as one, open_store() as other:
        assert one.claim(TEACHER, ask()) == "ours" and other.claim(TEACHER, ask()) == "taken"
        assert one.claim(TEACHER, ask()) == "ours"  # its own
        one.fail(TEACHER, ask(), Failure("503", lasting=False))
        assert other.claim(TEACHER, ask()) == "ours"


def test_failures_are_counted_and_are_no_answers(open_store: Callable[[], CaptureStore]) -> None:
    with open_store() as store:
        for text, reason, wasted in (("a", "503", 0), ("b", "503", 1), ("c", "401", 0)):
            store.claim(TEACHER, ask(text))
            store.fail(TEACHER, ask(text), Failure(reason, lasting=reason == "401", wasted=wasted))
        assert [(a.reason, a.count, a.wasted) for a in store.attempts()] == [("503", 2, 1), ("401", 1, 0)]
        assert store.get(TEACHER, ask("a")) is None and not list(store.records())


def test_a_claim_of_a_machine_that_cannot_be_looked_at_ends_with_time(
    open_store: Callable[[], CaptureStore], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    elsewhere = open_store()
    monkeypatch.undo()
    with elsewhere, open_store() as here:
        elsewhere.claim(TEACHER, ask())
        clock.now += CLAIM_SECONDS - 1
        assert here.claim(TEACHER, ask()) == "taken"
        clock.now += 1
        assert here.claim(TEACHER, ask()) == "ours"
        assert [(a.reason, a.count, a.wasted) for a in here.attempts()] == [(INTERRUPTED, 1, 1)]


def test_a_claim_of_a_dead_process_is_taken_over_and_seen(
    open_store: Callable[[], CaptureStore], tmp_path: Path
) -> None:
    program = (
        "import os; from pathlib import Path; from types import SimpleNamespace as S\n"
        "from distillation.record import Message; from distillation.teachers.store import CaptureStore\n"
        "from distillation.teachers.teacher import Ask\n"
        f"store = CaptureStore(Path({str(tmp_path / 'captures.sqlite')!r}))\n"
        "store.claim(S(name='big', identity='big model', licence='own'), Ask((Message('user', '2+2?'),)))\n"
        "os.kill(os.getpid(), 9)"
    )
    child = subprocess.Popen([sys.executable, "-c", program])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not buried yet
    with open_store() as store:
        assert store.claim(TEACHER, ask()) == "ours"
        assert [a.reason for a in store.attempts()] == [INTERRUPTED]
    assert child.wait() == -9


def _claim_all(path: Path, gate: Any, won: Any) -> None:
    with CaptureStore(path) as store:
        gate.wait()
        won.put(sum(store.claim(TEACHER, ask(str(i))) == "ours" for i in range(50)))
        gate.wait()  # alive until both have tried: a claim of the dead is no claim


def test_two_processes_never_claim_the_same(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate, won = context.Barrier(2), context.Queue()
    two = [context.Process(target=_claim_all, args=(tmp_path / "s.sqlite", gate, won)) for _ in range(2)]
    for process in two:
        process.start()
    assert won.get(timeout=60) + won.get(timeout=60) == 50
    for process in two:
        process.join()


def test_records_say_where_they_come_from(open_store: Callable[[], CaptureStore]) -> None:
    with open_store() as store:
        store.put(TEACHER, ask(), ANSWER)
        (record,) = store.records()
        more = {"capture": ask_key("big model", ask()), "captured": "1970-01-12T13:46:40+00:00", "finish": "stop"}
        messages = (Message("user", "2+2?"),)
        assert record == Record(messages, "four", source="capture", teacher="big", licence="own", more=more)
        assert list(store.records("big")) == [record] and not list(store.records("small"))


def test_what_is_too_old_is_gone_from_the_bytes_too(
    open_store: Callable[[], CaptureStore], clock: Clock, tmp_path: Path
) -> None:
    with open_store() as store:
        store.put(TEACHER, ask("old secret"), Answer("xyzzy-old", 1, 1))
        clock.now += 86_400
        store.put(TEACHER, ask("new"), Answer("xyzzy-new", 1, 1))
        assert [record.more["captured"][:10] for record in store.records()] == ["1970-01-12", "1970-01-13"]
        assert store.delete_before(datetime(1970, 1, 13, tzinfo=UTC)) == 1
        assert [record.prompt for record in store.records()] == ["new"]
        raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"xyzzy-new" in raw and b"xyzzy-old" not in raw and b"old secret" not in raw


CALL = {
    "request": {"model": "m", "messages": [{"role": "user", "content": "2+2?"}], "max_tokens": 256, "temperature": 0},
    "response": {
        "choices": [{"message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1},
    },
}


def test_pushed_calls_answer_the_same_questions(open_store: Callable[[], CaptureStore]) -> None:
    with open_store() as store:
        pushed = store.push([CALL, CALL], "big", "own", identity="big model")
        assert (pushed.added, pushed.known, pushed.refused) == (1, 1, {})
        answer = store.get(TEACHER, ask())
        assert answer is not None and (answer.text, answer.prompt_tokens, answer.usd) == ("four", 5, None)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"request": None}, "not a request with its response"),
        ({"request": {"messages": []}}, "without messages"),
        ({"request": {**CALL["request"], "tools": [{}]}}, "tools"),
        ({"request": {**CALL["request"], "n": 2}}, "several choices"),
        ({"request": {**CALL["request"], "temperature": float("nan")}}, "temperature is not a number"),
        ({"request": {"messages": [{"role": "tool", "content": "x"}]}}, "not a text of"),
        ({"request": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}}, "not a text of"),
        ({"request": {"messages": [{"role": "assistant", "content": "x"}]}}, "not the user's"),
        ({"response": {"error": {}}}, "not a chat completion"),
    ],
)
def test_calls_that_cannot_be_learnt_from_are_named(
    open_store: Callable[[], CaptureStore], changed: dict[str, Any], reason: str
) -> None:
    with open_store() as store:
        pushed = store.push([CALL, CALL | changed], "big", "own")
        assert pushed.added == 1 and list(pushed.refused) == [1] and reason in pushed.refused[1]


def test_other_forms_of_the_same_request_are_understood(open_store: Callable[[], CaptureStore]) -> None:
    parts = [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]
    messages = [{"role": "developer", "content": "s"}, {"role": "user", "content": parts}]
    with open_store() as store:
        store.push([{**CALL, "request": {"messages": messages, "max_completion_tokens": 8}}], "big", "own")
        (record,) = store.records()
    assert record.messages == (Message("system", "s"), Message("user", "2+2?"))


def test_other_peoples_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and long enough to be read as one" * 50)
    with pytest.raises(DataError, match="not a capture store"):
        CaptureStore(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE things (a)")
    db.close()
    with pytest.raises(DataError, match="another program's database"):
        CaptureStore(tmp_path / "other")
    with pytest.raises(StorageError):
        CaptureStore(tmp_path / "text" / "below")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="name a file"):
        CaptureStore(tmp_path / "folder")


def test_a_newer_store_is_not_read(open_store: Callable[[], CaptureStore], tmp_path: Path) -> None:
    open_store().close()
    with sqlite3.connect(tmp_path / "captures.sqlite") as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(DataError, match="of version 9"):
        open_store()
