"""Penalties against transformers' own, and against what they are by definition."""

import random

import pytest
import torch
from transformers.generation import logits_process as theirs

from phases.agent.design import Decoding
from phases.agent.penalties import ngram_ends, penalised, repetition, subtracted, without_ngrams

WORDS = 12


def texts(rows: int = 20, length: int = 15) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(WORDS) for _ in range(length)] for _ in range(rows)]


def logits(rows: int = 20) -> torch.Tensor:
    return torch.randn(rows, WORDS, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("penalty", [1.3, 0.7, 1.0])
def test_the_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor(texts()), logits())
    assert torch.equal(repetition(logits(), texts(), penalty), expected)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("written", [1, 2, 5, 15])
def test_ngrams_are_forbidden_as_in_transformers(length: int, written: int) -> None:
    expected = theirs.NoRepeatNGramLogitsProcessor(length)(torch.tensor(texts(length=written)), logits())
    assert torch.equal(without_ngrams(logits(), texts(length=written), length), expected)


def test_presence_and_frequency_are_taken_off_once_and_every_time() -> None:
    before, (text,) = logits(1), [[3, 3, 5]]
    after = subtracted(before, [text], 0.5, 0.25)
    expected = before.clone()
    expected[0, 3] -= 0.5 + 2 * 0.25
    expected[0, 5] -= 0.5 + 0.25
    assert torch.allclose(after, expected)


def test_rows_have_texts_of_their_own_length() -> None:
    written = [[1, 1, 1], [], [2]]
    decoding = Decoding(repetition_penalty=1.2, no_repeat_ngram=2, presence_penalty=0.1, frequency_penalty=0.2)
    together = penalised(logits(3), written, decoding)
    for row, text in enumerate(written):
        assert torch.equal(together[row], penalised(logits(3)[row : row + 1], [text], decoding)[0])
    assert torch.equal(together[1], logits(3)[1])
    assert together[0, 1] == -torch.inf


def test_the_logits_themselves_stay_as_they_are() -> None:
    before = logits()
    decoding = Decoding(repetition_penalty=1.2, no_repeat_ngram=2, presence_penalty=0.1)
    assert not torch.equal(penalised(before, texts(), decoding), before)
    assert torch.equal(before, logits())
    assert penalised(before, texts(), Decoding()) is before  # nothing is copied for nothing


def test_no_ngram_ends_before_one_is_written() -> None:
    assert ngram_ends([], 1) == ngram_ends([4], 2) == ngram_ends([4, 4], 0) == set()
    assert ngram_ends([4, 4], 2) == {4}
