"""The leak detector: silent on causal models, exact on leaking ones."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evaluation.causality import assert_causal, first_leak
from phases.checkpoint import Checkpoint

TOKENS = torch.arange(10, 26)


class Leaky:
    """A causal model whose logits at one position also see the last token."""

    def __init__(self, model: Any, position: int) -> None:
        self.model, self.position, self.config = model, position, model.config

    def __call__(self, input_ids: torch.Tensor) -> Any:
        logits = self.model(input_ids=input_ids).logits.clone()
        logits[:, self.position] += 1e-3 * input_ids[:, -1:]
        return SimpleNamespace(logits=logits)


def test_llama_is_causal(tiny_model: Any) -> None:
    assert first_leak(tiny_model, TOKENS, tolerance=0.0) is None
    assert_causal(tiny_model, TOKENS)


def test_every_model_of_a_family_is_causal(family: Checkpoint) -> None:
    for checkpoint in (family, *family.siblings.values()):
        assert_causal(checkpoint.model(), TOKENS)


@pytest.mark.parametrize("position", [0, 7, 14])
def test_a_leak_is_found_where_it_is(tiny_model: Any, position: int) -> None:
    assert first_leak(Leaky(tiny_model, position), TOKENS) == position


def test_the_last_position_may_see_the_last_token(tiny_model: Any) -> None:
    assert first_leak(Leaky(tiny_model, 15), TOKENS) is None


def test_bidirectional_attention_is_found(tiny_model: Any) -> None:
    class Symmetric(Leaky):
        def __call__(self, input_ids: torch.Tensor) -> Any:
            width = input_ids.shape[1]
            return self.model(input_ids=input_ids, attention_mask=torch.zeros(len(input_ids), 1, width, width))

    with pytest.raises(AssertionError, match="position 0 depend on a later token"):
        assert_causal(Symmetric(tiny_model, 0), TOKENS)


def test_nan_is_not_causal(tiny_model: Any) -> None:
    with torch.no_grad():
        tiny_model.model.norm.weight[0] = float("nan")
    assert first_leak(tiny_model, TOKENS) == 0


def test_one_token_cannot_be_tested(tiny_model: Any) -> None:
    with pytest.raises(ValueError, match="at least two tokens"):
        first_leak(tiny_model, TOKENS[:1])
