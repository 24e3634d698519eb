"""What a night learns from: parts by hash, what is sealed, whose answers may be used, what comes back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from distillation.money.budget import Budget
from distillation.night.asking import STEPS_FIRST, AskConfig, Filled, answers_of, complete, together
from distillation.night.data import DataConfig, gather
from distillation.record import GIVEN, Record, asked
from distillation.records.folder import append_records
from distillation.teachers.store import CaptureStore
from distillation.teachers.teacher import Answer, Ask, Failure
from distillation.validation.grading import is_right
from phases.errors import DataError, InputError

OWN = DataConfig(run=None)


class Toy:
    """Says what a table says; what is not in it fails."""

    name, identity, licence = "toy", "toy 1", "own"

    def __init__(self, says: dict[str, Answer | Failure]) -> None:
        self.says, self.heard = says, 0

    def most_usd(self, ask: Ask) -> float | None:
        return 0.01

    def answer(self, asks: Iterator[Ask]) -> Iterator[tuple[int, Answer | Failure]]:
        for i, ask in enumerate(asks):
            self.heard += 1
            yield i, self.says.get(ask.messages[-1].content, Failure("down", lasting=False))


def said(text: str, finish: str = "stop") -> Answer:
    return Answer(text, 3, 1, usd=0.01, finish=finish)


def records(count: int) -> list[Record]:
    return [asked(f"How many stones are in heap number {i}?", reference=str(i)) for i in range(count)]


def test_parts_are_those_of_the_hash_whatever_the_order(tmp_path: Path) -> None:
    every = records(400)
    first = gather(OWN, tmp_path, tmp_path / "a", every)
    second = gather(OWN, tmp_path, tmp_path / "a", every[::-1])
    assert {r.key for r in first.sealed} == {r.key for r in second.sealed}
    assert 50 < len(first.sealed) < 110 and 20 < len(first.validation) < 70
    assert len(first.train) + len(first.validation) + len(first.sealed) == 400
    more = gather(OWN, tmp_path, tmp_path / "a", [*every, *(replace(r, completion="x") for r in every)])
    assert {r.prompt_key for r in more.sealed} == {r.prompt_key for r in first.sealed}


def test_pushed_records_count_and_captures_pass_the_licence_gate(tmp_path: Path) -> None:
    append_records(tmp_path / "inbox", records(60))
    captured = [replace(r, teacher="stranger", licence="unheard-of") for r in records(90)[60:]]
    found = gather(OWN, tmp_path, tmp_path, captured)
    assert len(found.train) + len(found.validation) + len(found.sealed) == 60
    ((why, count),) = found.rejected.items()
    assert count == 30 and "unheard-of" in why


def test_nothing_to_learn_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no records to learn from; set data.run"):
        gather(OWN, tmp_path, tmp_path, [])


def fill(tmp_path: Path, questions: list[Record], toy: Toy, budget: Budget, samples: int = 1) -> list[Record]:
    with CaptureStore(tmp_path / "answers.sqlite") as store:
        config = AskConfig(samples=samples, temperature=0.0 if samples == 1 else 1.0)
        found = complete(
            questions, lambda _: toy, store, config, right=lambda r, text: text == r.reference, budget=budget
        )
    return found.records


def test_a_wrong_answer_gives_way_to_the_given_one(tmp_path: Path) -> None:
    right, wrong, unanswered = records(3)
    questions = [replace(r, more={GIVEN: f"{r.reference}!"}) for r in (right, wrong, unanswered)]
    toy = Toy({right.prompt: said("0"), wrong.prompt: said("9")})
    filled = fill(tmp_path, questions, toy, Budget())
    assert [(r.completion, r.teacher) for r in filled] == [("0", "toy"), ("1!", ""), ("2!", "")]


def test_steps_are_asked_for_and_questions_stay_as_they_are(tmp_path: Path) -> None:
    (record,) = records(1)
    toy = Toy({record.prompt + STEPS_FIRST: said(f"none #### {record.reference}")})
    with CaptureStore(tmp_path / "answers.sqlite") as store:
        found = complete([record], lambda _: toy, store, AskConfig(steps=True), right=is_right, budget=Budget())
    (filled,) = found.records
    assert filled.prompt == record.prompt and filled.completion == f"none #### {record.reference}"


def test_growing_shares_count_what_all_of_them_asked() -> None:
    first, second = Filled([], 40, 0, {}, 0, 0.4, ""), Filled([], 20, 40, {}, 1, 0.2, "")
    found = together([first, second])
    assert (found.asked, found.from_store, found.usd, found.cut_off) == (60, 0, pytest.approx(0.6), 1)
    assert together([first, replace(second, usd=None)]).usd is None


def test_cut_off_answers_and_questions_without_any_are_not_learnt_from(tmp_path: Path) -> None:
    first, second = records(2)
    toy = Toy({first.prompt: said("0", "length")})
    assert fill(tmp_path, [first, second], toy, Budget()) == []


def test_what_was_answered_is_never_asked_again(tmp_path: Path) -> None:
    every = records(5)
    toy = Toy({r.prompt: said(r.reference) for r in every})
    fill(tmp_path, every, toy, Budget(teacher_calls=3))
    assert toy.heard == 3
    assert len(fill(tmp_path, every, toy, Budget())) == 5 and toy.heard == 5


class Backwards(Toy):
    """Answers with the question, last first; is busy where it is told to be."""

    def __init__(self, busy: str = "") -> None:
        super().__init__({})
        self.busy = busy

    def answer(self, asks: Iterator[Ask]) -> Iterator[tuple[int, Answer | Failure]]:
        for i, ask in reversed(list(enumerate(asks))):
            text = ask.messages[-1].content
            yield i, Failure("busy", lasting=False) if text == self.busy else said(text)


def test_answers_come_in_the_order_of_the_questions(tmp_path: Path) -> None:
    with CaptureStore(tmp_path / "sealed.sqlite") as store:
        assert answers_of(Backwards(), store, 8)([asked("a"), asked("b")]) == ["a", "b"]


def test_a_failure_is_not_a_wrong_answer(tmp_path: Path) -> None:
    with CaptureStore(tmp_path / "sealed.sqlite") as store, pytest.raises(InputError, match=r"1 of 2 .* \(busy\)"):
        answers_of(Backwards("b"), store, 8)([asked("a"), asked("b")])


def test_an_examination_wants_every_answer(tmp_path: Path) -> None:
    every = records(3)
    toy = Toy({every[0].prompt: said("0"), every[1].prompt: Failure("too long", lasting=True)})
    with CaptureStore(tmp_path / "sealed.sqlite") as store:
        ask = answers_of(toy, store, 8)
        assert ask(every[:2]) == ["0", ""]
        with pytest.raises(InputError, match=r"1 of 3|2 of 3"):
            ask(every)
