"""Tokens a step against the closed form, a simulation, and its edges."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.physics.speculation import tokens_per_step
from phases.errors import InputError


@given(st.floats(0, 0.99), st.integers(0, 16))
def test_closed_form(acceptance: float, drafts: int) -> None:
    expected = (1 - acceptance ** (drafts + 1)) / (1 - acceptance)
    assert tokens_per_step(acceptance, drafts) == pytest.approx(expected, rel=1e-9)


def test_edges() -> None:
    assert tokens_per_step(1.0, 4) == 5
    assert tokens_per_step(0.0, 4) == 1
    assert tokens_per_step(0.7, 0) == 1
    assert tokens_per_step(1 - 1e-12, 4) == pytest.approx(5)


def test_the_papers_table() -> None:
    """Leviathan et al. 2023, table 1: α = 0.8, k = 5, drafts that cost nothing: 3.69 times."""
    assert tokens_per_step(0.8, 5) == pytest.approx(3.69, abs=0.01)


def test_as_simulated() -> None:
    draw = random.Random(0)

    def step() -> int:
        accepted = 0
        while accepted < 5 and draw.random() < 0.8:
            accepted += 1
        return accepted + 1

    mean = sum(step() for _ in range(20_000)) / 20_000
    assert tokens_per_step(0.8, 5) == pytest.approx(mean, rel=0.02)


@pytest.mark.parametrize(("acceptance", "drafts"), [(-0.1, 2), (1.1, 2), (0.5, -1)])
def test_bad_input(acceptance: float, drafts: int) -> None:
    with pytest.raises(InputError):
        tokens_per_step(acceptance, drafts)
