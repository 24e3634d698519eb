"""Two teachers and what they say, made once for all tests of training."""

import pytest

from distillation.record import Record, asked
from distillation.training.strategies import Tutor
from tests.distillation.small import saved


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Tutor]:
    folder = tmp_path_factory.mktemp("teachers")
    return [Tutor(name, saved(folder / name, seed=i), quality=0.5 + i / 4) for i, name in enumerate("ab")]


@pytest.fixture(scope="session")
def records() -> list[Record]:
    words = ["cat", "hat", "and", "the", "that", "hand"]
    return [
        asked(f"say {w}", completion=w, reference=w.upper(), rationale=f"it is {w}", teacher="ab"[i % 2], group=w)
        for i, w in enumerate(words * 2)
    ]
