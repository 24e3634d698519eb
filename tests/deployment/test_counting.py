"""Nouns agree with their numbers."""

from deployment.counting import counted


def test_one_is_one() -> None:
    assert [counted(n, "load") for n in (0, 1, 2, 1000)] == ["0 loads", "1 load", "2 loads", "1,000 loads"]
