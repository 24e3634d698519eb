"""Collecting: what is stored is not asked, what a budget does not allow is not asked, what fails is not kept."""

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from distillation.money.budget import Budget
from distillation.money.ledger import Ledger
from distillation.record import Message
from distillation.teachers.collect import Collected, collect
from distillation.teachers.store import INTERRUPTED, CaptureStore
from distillation.teachers.teacher import Answer, Ask, Failure
from phases.errors import InputError

Script = Callable[[str], Answer | Failure]


def asks(*texts: str) -> list[Ask]:
    return [Ask((Message("user", text),), max_tokens=8) for text in texts]


def echo(text: str) -> Answer | Failure:
    return Answer(text.upper(), 3, 1, usd=0.25)


class Scripted:
    """A teacher that takes `room` questions at a time."""

    name, identity, licence = "scripted", "scripted one", "own"

    def __init__(self, script: Script = echo, most: float | None = 1.0, room: int = 1) -> None:
        self.script, self.most, self.room = script, most, room
        self.asked: list[str] = []

    def most_usd(self, ask: Ask) -> float | None:
        return self.most

    def answer(self, asks: Iterable[Ask]) -> Iterator[tuple[int, Answer | Failure]]:
        source, under_way = enumerate(asks), []
        while True:
            while len(under_way) < self.room and (one := next(source, None)):
                self.asked.append(one[1].messages[-1].content)
                under_way.append(one)
            if not under_way:
                return
            index, ask = under_way.pop()
            yield index, self.script(ask.messages[-1].content)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CaptureStore]:
    with CaptureStore(tmp_path / "captures.sqlite") as one:
        yield one


def texts(collected: Collected) -> dict[int, str]:
    return {index: answer.text for index, answer in collected.answers.items()}


def test_what_is_stored_is_not_asked_again(store: CaptureStore) -> None:
    teacher = Scripted(room=2)
    first = collect(teacher, asks("a", "b"), store)
    second = collect(teacher, asks("b", "c", "a"), store)
    assert texts(first) == {0: "A", 1: "B"} and texts(second) == {0: "B", 1: "C", 2: "A"}
    assert teacher.asked == ["a", "b", "c"] and (second.from_store, second.asked, second.usd) == (2, 1, 0.25)


def test_equal_questions_are_asked_once(store: CaptureStore) -> None:
    teacher = Scripted(room=3)
    collected = collect(teacher, asks("a", "b", "a"), store)
    assert texts(collected) == {0: "A", 1: "B", 2: "A"} and sorted(teacher.asked) == ["a", "b"]
    assert (collected.asked, collected.from_store) == (2, 1)


def test_equal_questions_that_fail_count_once(store: CaptureStore) -> None:
    collected = collect(Scripted(lambda _: Failure("no", lasting=True)), asks("a", "a"), store)
    assert set(collected.failures) == {0, 1} and (collected.asked, collected.from_store) == (1, 0)


def test_failures_are_never_kept(store: CaptureStore) -> None:
    bad = Scripted(lambda text: Failure("503", lasting=False) if text == "b" else echo(text))
    first = collect(bad, asks("a", "b"), store)
    assert texts(first) == {0: "A"} and first.failures == {1: Failure("503", lasting=False)} and not first.stopped
    good = Scripted()
    assert texts(collect(good, asks("a", "b"), store)) == {0: "A", 1: "B"} and good.asked == ["b"]


def test_a_budget_of_nothing_gives_what_is_stored(store: CaptureStore) -> None:
    collect(Scripted(), asks("a"), store)
    teacher = Scripted()
    collected = collect(teacher, asks("a", "b"), store, budget=Budget(usd=0))
    assert texts(collected) == {0: "A"} and not teacher.asked and "budget of $0" in collected.stopped


@pytest.mark.parametrize("room", [1, 3, 50])
def test_dollars_are_never_exceeded_and_used_up(store: CaptureStore, room: int) -> None:
    teacher, budget = Scripted(room=room), Budget(usd=3.1)
    collected = collect(teacher, asks(*map(str, range(30))), store, budget=budget)
    # each takes .25 and may take 1.00: after nine 2.25 are spent, and a tenth could end above the limit
    assert len(collected.answers) == 9 and budget.spent.usd == Decimal("2.25")
    assert "may cost $1" in collected.stopped and collected.usd == 2.25


def test_calls_and_time_are_limits_too(store: CaptureStore) -> None:
    teacher = Scripted(room=4)
    assert len(collect(teacher, asks(*"abcdef"), store, budget=Budget(teacher_calls=3)).answers) == 3
    clock = iter(range(1000))
    budget = Budget(seconds=4, clock=lambda: float(next(clock)))
    collected = collect(Scripted(), asks(*"uvwxyz"), store, budget=budget)
    assert 0 < len(collected.answers) < 6 and "budget of 4 s" in collected.stopped


def test_an_unknown_price_and_a_limit_of_dollars_do_not_go_together(store: CaptureStore) -> None:
    teacher = Scripted(most=None)
    collected = collect(teacher, asks("a"), store, budget=Budget(usd=5))
    assert not teacher.asked and "the price of the next step is not known" in collected.stopped
    assert texts(collect(teacher, asks("a"), store, budget=Budget(teacher_calls=5))) == {0: "A"}


def test_an_answer_without_usage_ends_a_night_with_a_limit_of_dollars(store: CaptureStore) -> None:
    teacher = Scripted(lambda text: Answer(text, None, None))
    collected = collect(teacher, asks("a", "b"), store, budget=Budget(usd=5))
    assert len(teacher.asked) == 1 and collected.usd is None and "not known" in collected.stopped
    assert texts(collect(Scripted(), asks("a"), store)) == {0: "a"}  # and it was kept


def test_attempts_that_may_have_been_charged_are_paid_for(store: CaptureStore, tmp_path: Path) -> None:
    def script(text: str) -> Answer | Failure:
        return Failure("cut", False, wasted=2) if text == "bad" else Answer("ok", 3, 1, usd=0.25, wasted=1)

    ledger, budget = Ledger(tmp_path / "ledger.jsonl"), Budget(usd=10)
    collected = collect(Scripted(script), asks("bad", "good"), store, budget=budget, ledger=ledger)
    assert (collected.usd, collected.wasted, collected.wasted_usd) == (0.25, 3, 3.0)
    assert budget.spent.usd == Decimal("3.25") and budget.spent.calls == 4
    assert ledger.invested()["labelling"].value == Decimal("3.25")


def test_a_ledger_has_each_answer_once(store: CaptureStore, tmp_path: Path) -> None:
    for _ in range(2):
        collect(Scripted(), asks("a", "b"), store, ledger=Ledger(tmp_path / "ledger.jsonl"))
    entries = Ledger(tmp_path / "ledger.jsonl").entries()
    assert [(e.kind, e.quantity, e.usd, e.note) for e in entries] == [("labelling", 1, Decimal("0.25"), "scripted")] * 2


def test_an_interruption_is_seen_and_gives_claims_back(store: CaptureStore) -> None:
    def script(text: str) -> Answer | Failure:
        if text == "b":
            raise KeyboardInterrupt
        return echo(text)

    with pytest.raises(KeyboardInterrupt):
        collect(Scripted(script), asks("a", "b"), store)
    assert [(a.reason, a.wasted) for a in store.attempts()] == [(INTERRUPTED, 1)]
    assert texts(collect(Scripted(), asks("a", "b"), store)) == {0: "A", 1: "B"}


def test_what_another_process_asks_is_waited_for(store: CaptureStore, tmp_path: Path) -> None:
    other, wanted = CaptureStore(tmp_path / "captures.sqlite"), asks("theirs", "ours")
    theirs = Scripted()
    other.claim(theirs, wanted[0])

    def script(text: str) -> Answer | Failure:
        other.put(theirs, wanted[0], Answer("from them", 1, 1))
        return echo(text)

    teacher = Scripted(script)
    collected = collect(teacher, wanted, store)
    other.close()
    assert texts(collected) == {0: "from them", 1: "OURS"} and teacher.asked == ["ours"]


def test_progress_reaches_the_end(store: CaptureStore) -> None:
    collect(Scripted(), asks("a"), store)
    seen: list[tuple[int, int]] = []
    collect(Scripted(), asks("a", "b", "b", "c"), store, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 4), (3, 4), (4, 4)]


def test_nothing_to_ask(store: CaptureStore) -> None:
    assert collect(Scripted(), [], store) == Collected({}, {}, 0, 0, 0.0, 0, 0.0, "")


def test_the_teachers_own_error_comes_out(store: CaptureStore) -> None:
    def script(text: str) -> Answer | Failure:
        raise InputError("the key is gone")

    with pytest.raises(InputError, match="the key is gone"):
        collect(Scripted(script), asks("a"), store)
