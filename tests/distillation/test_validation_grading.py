"""Exact match where the answer is known, agreement with the teacher where not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.record import asked
from distillation.validation.grading import grade, kind_of, token_f1, values
from phases.errors import DataError

KNOWN = asked("6*7", reference="42")
OPEN = asked("Why is the sky blue?", completion="Light is scattered by air.")


@pytest.mark.parametrize(
    ("text", "points"), [("42", 1), (" 42\n", 1), ("6*7=42 #### 42", 1), ("41", 0), ("", 0), ("it is 42", 0)]
)
def test_exact_match(text: str, points: float) -> None:
    assert grade(KNOWN, text) == points


def test_a_reference_may_have_steps_too() -> None:
    assert grade(asked("6*7", reference="6*7=42 #### 42"), "42") == 1


def test_canonically_equal_letters_are_equal() -> None:
    assert grade(asked("?", reference="caf\u00e9"), "cafe\u0301") == 1


def test_agreement_by_hand() -> None:
    """Shared: light, by, air and the full stop, 4 of 6 and of 5 tokens."""
    assert grade(OPEN, "Light bent by air.") == pytest.approx(2 * 4 / (5 + 6))
    assert grade(OPEN, OPEN.completion.upper()) == 1
    assert grade(OPEN, "no idea") == 0


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_agreement_is_symmetric_and_a_share(a: str, b: str) -> None:
    assert token_f1(a, b) == token_f1(b, a)
    assert 0 <= token_f1(a, b) <= 1 == token_f1(a, a)


def test_values_and_their_kind() -> None:
    assert np.array_equal(values([KNOWN, OPEN], ["42", OPEN.completion]), [1, 1])
    assert kind_of([KNOWN]) == "right" and kind_of([KNOWN, OPEN]) == "graded"


def test_what_cannot_be_graded() -> None:
    with pytest.raises(DataError, match="neither a reference nor a teacher's answer"):
        grade(asked("?"), "x")
    with pytest.raises(DataError, match="1 answers to 2 records"):
        values([KNOWN, OPEN], ["42"])
