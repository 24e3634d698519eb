"""Changes that keep the answer, the same on every run, and what is compared under them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.record import Message, Record, asked
from distillation.validation.robustness import (
    RobustnessConfig,
    changed,
    edge_cases,
    edge_criteria,
    robustness_criteria,
)
from distillation.validation.transformations import FRAMES, Transformation, transform
from phases.errors import InputError

FILLER = ("The garden is green in spring, and the gardener counts the trees every morning before breakfast.",)
QUESTION = 'Which number follows 4071 in the sequence, and who wrote "Faust One" about Berlin?'
RECORD = asked(QUESTION, reference="Berlin 4072", group="facts")
NAMES = tuple(name for name in get_args(Transformation) if name != "paraphrase")


@pytest.mark.parametrize("name", NAMES)
def test_digits_quotes_and_the_answer_stay(name: Transformation) -> None:
    for seed in range(50):
        text = transform(RECORD, name, seed, FILLER, 5).prompt
        assert text != QUESTION or name in ("casing", "framing")
        assert all(part in text for part in ("4071", '"Faust One"', "Berlin"))


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_text_whatever_else_there_is(name: Transformation) -> None:
    assert transform(RECORD, name, 3, FILLER) == transform(RECORD, name, 3, FILLER)
    texts = {transform(RECORD, name, seed, FILLER, 5).prompt for seed in range(30)}
    assert len(texts) > 1


def test_only_the_last_turn_changes_and_everything_else_rides_along() -> None:
    talk = Record((Message("system", "Be kind."), Message("user", QUESTION)), reference="Berlin", group="facts")
    new = transform(talk, "framing", 0)
    assert new.messages[0] == talk.messages[0] and (new.reference, new.group) == ("Berlin", "facts")


def test_typos_are_small() -> None:
    for seed in range(40):
        text = transform(RECORD, "typos", seed).prompt
        wrong = [(a, b) for a, b in zip(QUESTION.split(), text.split(), strict=True) if a != b]
        assert len(wrong) == 1 and len(wrong[0][0]) == len(wrong[0][1]) and wrong[0][0][0] == wrong[0][1][0]


def test_white_space_and_casing_keep_the_words() -> None:
    assert transform(RECORD, "white_space", 1).prompt.split() == QUESTION.split()
    assert transform(RECORD, "casing", 1).prompt.lower() == QUESTION.lower()


def test_framing_and_length_keep_the_question_whole() -> None:
    assert all(frame.count("{}") == 1 for frame in FRAMES)
    assert QUESTION in transform(RECORD, "framing", 1).prompt
    long = transform(RECORD, "length", 1, FILLER, 6).prompt
    assert long.endswith("\n\n" + QUESTION) and len(long.removesuffix(QUESTION).split()) == 6


def test_braces_in_a_question_are_no_template() -> None:
    assert "{x} {} {0}" in transform(asked("print {x} {} {0}", reference="1"), "framing", 2).prompt


def test_length_needs_text() -> None:
    with pytest.raises(InputError, match="was given none"):
        transform(RECORD, "length", 0)


@settings(deadline=None)
@given(st.text(max_size=80), st.sampled_from(NAMES), st.integers(0, 5))
def test_any_text_survives(text: str, name: Transformation, seed: int) -> None:
    new = transform(asked(text, reference="x"), name, seed, FILLER, 3).prompt
    assert re.findall(r"\d+", text) == re.findall(r"\d+", new)


def test_records_that_a_change_leaves_alone_do_not_count() -> None:
    """`gcd 12 18` has no word whose letters are free; groups about letters get neither typos nor casing."""
    records = [asked("gcd 12 18", reference="6"), asked("count a: banana window", reference="4", group="letters")]
    found = changed(records, RobustnessConfig(letter_groups=("letters",)), FILLER)
    assert {name: len(new) for name, new in found.items()} == {
        **dict.fromkeys(("typos", "casing", "paraphrase"), 0),
        **dict.fromkeys(("white_space", "framing", "length"), 2),
    }


def test_a_paraphrase_is_what_somebody_wrote_beside_the_question() -> None:
    written = replace(RECORD, more={"paraphrase": "After 4071 comes what, and whose is Faust One, of Berlin?"})
    found = changed([written, RECORD], RobustnessConfig(transformations=("paraphrase",)))
    (new,) = found["paraphrase"]
    assert new.prompt == written.more["paraphrase"] and new.reference == RECORD.reference


def brittle(records: Sequence[Record]) -> list[str]:
    """Knows the answer unless the question is framed."""
    return [r.reference if r.prompt.startswith("What") else "?" for r in records]


def test_a_brittle_student_shows() -> None:
    records = [asked(f"What comes after {i}", reference=str(i + 1)) for i in range(40)]
    config = RobustnessConfig(transformations=("framing", "typos"))
    framed, mistyped = robustness_criteria(records, brittle, lambda rs: [r.reference for r in rs], config)
    assert framed.name == "robustness/framing" and framed.role == "guard" and framed.kind == "right"
    assert framed.student.mean() < 0.5 < framed.teacher.mean() == 1.0
    assert mistyped.student.mean() > framed.student.mean()


def test_edge_cases() -> None:
    records = [asked("x" * (i + 1), group="rare" if i == 5 else "all", edge=i == 2) for i in range(20)]
    found = edge_cases(records, 0.1)
    assert {name: index.tolist() for name, index in found.items()} == {
        "marked": [2],
        "longest": [18, 19],
        "shortest": [0, 1],
        "rarest group, rare": [5],
    }


def test_no_edges_where_all_are_alike() -> None:
    assert edge_cases([asked("same")] * 5, 0.1) == {}


def test_edge_criteria_take_the_values_there_are() -> None:
    records = [asked("x" * (i + 1), reference="1") for i in range(10)]
    values = np.arange(10) % 2
    longest, shortest = edge_criteria(records, values, 1 - values, RobustnessConfig(edge=0.2))
    assert (longest.student.tolist(), shortest.teacher.tolist()) == ([0, 1], [1, 0])
    assert longest.role == "guard"
