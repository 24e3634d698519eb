"""Gaps, and questions that a teacher writes for them: parsed, new, not sealed, and honest about what is missing."""

from collections.abc import Iterator, Sequence

import pytest

from distillation.curation.synthesis import Gap, Synthesis, gaps, parse, synthesise
from distillation.record import asked
from distillation.teachers.teacher import Answer, Ask, Failure

KNOWN = [asked("How do I cancel my order?", group="shop"), asked("Where is my parcel now?", group="shop"), asked("x")]


class Scripted:
    """A teacher whose replies are given."""

    name, identity, licence = "scripted", "scripted", "own"

    def __init__(self, *replies: str | Answer | Failure) -> None:
        self.replies = list(replies)
        self.asks: list[Ask] = []

    def answer(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Answer | Failure]]:
        for i, ask in enumerate(asks):
            self.asks.append(ask)
            if self.replies:
                reply = self.replies.pop(0)
                yield i, said(reply) if isinstance(reply, str) else reply


def said(text: str, usd: float | None = 0.5, finish: str = "stop") -> Answer:
    return Answer(text, 1, 1, usd=usd, finish=finish)


def test_gaps_are_counted() -> None:
    assert gaps(KNOWN, {"shop": 5, "all": 1, "tax": 2}) == [Gap("shop", 3), Gap("tax", 2)]


@pytest.mark.parametrize(
    ("answer", "questions"),
    [
        (said("1. A?\n2) B,\nwith two lines?\n\n3. C?"), ["A?", "B,\nwith two lines?", "C?"]),
        (said("Sure!\n1. A 2.5 kg?\n2.  "), ["A 2.5 kg?"]),
        (said("1. A?\n2. B and th", finish="length"), ["A?"]),
        (said("no list"), []),
    ],
)
def test_replies_are_parsed(answer: Answer, questions: list[str]) -> None:
    assert parse(answer) == questions


def test_new_questions_until_the_gap_is_filled() -> None:
    teacher = Scripted(
        "1. May I return a gift?\n2. how do i cancel my order\n3. Is my secret question sealed?",
        "1. Do you ship abroad?\n2. May I pay later?",
    )
    made = synthesise(Gap("shop", 2), KNOWN, teacher, sealed=[("Is my secret question sealed?",)])
    assert [r.prompt for r in made.records] == ["May I return a gift?", "Do you ship abroad?"]
    assert {(r.group, r.source, r.completion, r.more["written_by"]) for r in made.records} == {
        ("shop", "synthetic", "", "scripted")
    }
    assert made.refused == {"like a question that there is": 1, "in the sealed evaluation": 1}
    assert (made.asks, made.usd) == (2, 1.0)


def test_the_teacher_sees_questions_of_the_group_alone_and_others_each_time() -> None:
    records = [asked(f"Which colour has {word}?", group="shop") for word in ("grass", "snow", "blood", "coal", "sky")]
    teacher = Scripted()
    synthesise(
        Gap("shop", 9), [*records, asked("foreign", group="y")], teacher, config=Synthesis(examples=2, most_asks=4)
    )
    shown = [ask.messages[-1].content for ask in teacher.asks]
    assert len(set(shown)) > 1
    assert len({ask.seed for ask in teacher.asks}) == 4
    assert all(text.count("Which colour has") == 2 and "foreign" not in text for text in shown)


def test_what_stays_open_is_told() -> None:
    lasting, passing = Failure("key refused", lasting=True), Failure("busy", lasting=False)
    made = synthesise(
        Gap("shop", 3), KNOWN, Scripted(passing, "nothing", said("1. New one?", usd=None), lasting, "1. Late?")
    )
    assert [r.prompt for r in made.records] == ["New one?"]
    assert made.refused == {"teacher: busy": 1, "replies without a numbered question": 1, "teacher: key refused": 1}
    assert (made.asks, made.usd) == (4, None)
    silent = synthesise(Gap("shop", 3), KNOWN, Scripted(), config=Synthesis(most_asks=2))
    assert (silent.records, silent.refused) == ((), {"teacher: no reply": 2})


def test_a_group_without_a_question_cannot_be_shown() -> None:
    teacher = Scripted("1. A?")
    assert synthesise(Gap("tax", 3), KNOWN, teacher).refused == {"the group has no question to show": 3}
    assert teacher.asks == []
