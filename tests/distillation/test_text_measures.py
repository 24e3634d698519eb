"""The score of expected answers: proper, between 0 and 1, and what the model's own probabilities say."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.night.text_measures import ReadText, expected_score, log_score
from distillation.record import Record, asked
from distillation.training.held_out import HeldOut
from phases.data.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def examinee() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=260, **sizes, tie_word_embeddings=False)  # type: ignore[arg-type]
    return SimpleNamespace(model=LlamaForCausalLM(config).eval(), tokenizer=train_tokenizer(["a b c d"] * 20, 260))


def questions() -> list[Record]:
    return [asked(f"{i}+1", reference=str(i + 1)) for i in range(9)]


def test_the_score_is_that_of_the_models_own_probabilities(examinee: Any) -> None:
    nats = HeldOut(questions(), examinee.tokenizer).measure(examinee.model).nats_N
    score = expected_score(examinee, questions())
    np.testing.assert_allclose(score, 1 - np.minimum(nats, np.log(260)) / np.log(260))
    assert abs(float(score.mean())) < 0.1  # an untrained model guesses


def test_who_is_sure_and_wrong_gets_nothing_and_never_less(examinee: Any) -> None:
    with torch.no_grad():
        examinee.model.lm_head.weight *= 1000.0
    score = expected_score(examinee, questions())
    assert score.min() == 0 and score.max() <= 1


def test_being_surer_than_right_costs_more_than_it_brings() -> None:
    """Right three times of four: a probability of .75 has the better mean score, the linear score prefers .99."""
    calibrated, sure = (np.array([p, p, p, 1 - p]) for p in (0.75, 0.99))
    assert calibrated.mean() < sure.mean()
    assert log_score(-np.log(calibrated), 260).mean() > log_score(-np.log(sure), 260).mean()


def test_text_is_kept_by_the_nats_and_meets_the_baseline_by_the_score() -> None:
    """Twice the nats are half of the text; a difference of costs is one of logarithmic scores."""
    nats = {
        "student": np.array([200.0, 400.0]),
        "teacher": np.array([100.0, 200.0]),
        "baseline": np.array([300.0, 9e9]),
    }
    one = ReadText(nats, np.array([500.0, 500.0]), tokens=100, vocabulary=260).criterion(
        "student", "teacher", "baseline"
    )
    assert one.costs and float(np.sum(one.teacher) / np.sum(one.student)) == pytest.approx(0.5)
    assert one.baseline is not None and one.baseline[1] == 1.0  # worse than a guess is as bad as a guess
    np.testing.assert_allclose(1 - one.student, log_score(nats["student"] / 100, 260))
