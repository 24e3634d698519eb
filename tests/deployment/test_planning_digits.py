"""Numbers for people: never an exponent, differences are seen, units suit the size; what rejections say with them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.planning.candidate import Rejection
from deployment.planning.digits import alike, duration, number, rate, size
from deployment.planning.recommend import recommend
from deployment.planning.request import Request


@pytest.mark.parametrize(
    ("value", "text"),
    [(2000.0, "2,000"), (999.6, "1,000"), (0.8333, "0.833"), (24.04, "24"), (2.4e-6, "0.0000024"), (0.0, "0")],
)
def test_a_number_has_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((14.5612, 14.5584), ["14.561", "14.558"]),
        ((8192.0, 16384.0), ["8,192", "16,384"]),
        ((15067.2, 6000.0), ["15,067", "6,000"]),
        ((2.0, 1.0), ["2", "1"]),
        ((1.015, 1.0), ["1.015", "1.000"]),
        ((93.44, 93.44), ["93.44", "93.44"]),
    ],
)
def test_numbers_that_are_compared_are_written_alike(values: tuple[float, float], texts: list[str]) -> None:
    assert alike(*values) == texts


@given(st.floats(1e-3, 1e9), st.floats(1e-3, 1e9))
def test_different_numbers_look_different(one: float, other: float) -> None:
    if abs(one - other) > 1e-9:
        assert len(set(alike(one, other))) == 2


def test_units_suit_the_size() -> None:
    assert [duration(one) for one in (2.4e-6, 0.424, 711.375)] == ["0.0024 ms", "424 ms", "711 s"]
    assert [size(one) for one in (2**20, 2**30, 0.0)] == ["1 MiB", "1.00 GiB", "0 MiB"]
    assert [rate(1.0), rate(1.5)] == ["1 request/s", "1.5 requests/s"]


def test_a_rejection_shows_that_a_hair_is_missing() -> None:
    close = Rejection("m on g", "m", "g", "memory", 14.5612, 14.5584, "GiB")
    assert str(close) == "m on g: memory 14.561 where 14.558 is the limit [GiB]"
    words = Rejection("m on g", "m", "g", "physics", "not computed", "", "", "why")
    assert str(words) == "m on g: physics not computed; why"


def test_who_is_outdone_missed_no_limit() -> None:
    answer = recommend(Request.parse({"use_case": "chat", "family": "qwen3"}, "request"))
    outdone = [str(one) for one in answer.rejections if one.constraint == "outdone"]
    assert outdone and not any("limit" in text for text in outdone)
    assert all(": no cheaper (" in text and ", no faster (" in text for text in outdone)
    assert any("`--exhaustive` solves all" in note for note in answer.notes)


def test_engines_name_vendors_as_these_do() -> None:
    settings = {"models": ["Qwen/Qwen3-8B"], "accelerators": ["inferentia2"], "tensor_parallel": [1]}
    answer = recommend(Request.parse(settings, "request"))
    assert "engine AWS where AMD or NVIDIA is needed" in str(answer.nearest[0])
