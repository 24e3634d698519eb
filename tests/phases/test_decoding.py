"""Decoding: greedy against transformers, sampling against the softmax it is to follow."""

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from phases.dataset import Dataset
from phases.decoding import MARGIN, Sampler, decode, left_pad, likeliest, stop_ids, token_limit
from phases.tasks.item import Item

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5, -torch.inf])
CHI_SQUARE_4 = 18.47
"""Exceeded by chance once in a thousand (4 degrees of freedom)."""


def prompts(count: int = 12) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(1, 257) for _ in range(rng.randrange(1, 20))] for _ in range(count)]


def chi_square(tokens: list[int], temperature: float) -> float:
    """Of the counts against softmax(LOGITS / temperature); the impossible token must not be there at all."""
    seen = np.bincount(tokens, minlength=6)
    weight = np.exp(LOGITS.double().numpy()[:5] / temperature)
    expected = len(tokens) * weight / weight.sum()
    assert seen[5] == 0
    return float(((seen[:5] - expected) ** 2 / expected).sum())


def test_greedy_is_that_of_transformers_up_to_each_limit(tiny_model: Any) -> None:
    limits = [1 + 3 * i for i in range(12)]
    written = decode(tiny_model, prompts(), limits, {0}, likeliest, batch=5)
    for prompt, limit, ours in zip(prompts(), limits, written, strict=True):
        ids = torch.tensor([prompt])
        theirs = tiny_model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False, pad_token_id=0
        )
        assert ours == theirs[0, len(prompt) :].tolist()


def test_a_limit_of_none_writes_nothing(tiny_model: Any) -> None:
    assert decode(tiny_model, [[1], [2]], [0, 3], set(), likeliest)[0] == []


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_of_many_prompts_follow_the_softmax(temperature: float) -> None:
    count = 4000
    mixed = [temperature if i % 2 else 0.1 for i in range(count)]  # each row has its own temperature
    drawn = Sampler(mixed, [1])(LOGITS.expand(count, -1), range(count)).tolist()
    assert chi_square(drawn[1::2], temperature) < CHI_SQUARE_4
    assert chi_square(drawn[1::2], 1.5 * temperature) > CHI_SQUARE_4  # the test can tell


def test_draws_of_one_prompt_follow_the_softmax() -> None:
    sampler = Sampler([1.0], [2])
    drawn = [int(sampler(LOGITS[None], [0])) for _ in range(4000)]
    assert chi_square(drawn, 1.0) < CHI_SQUARE_4
    assert len(set(pairwise(drawn))) == 25  # one draw does not fix the next


def test_what_is_drawn_does_not_depend_on_the_batch(tiny_model: Any) -> None:
    def written(batch: int, seed: int = 3) -> list[list[int]]:
        return decode(tiny_model, prompts(), [20] * 12, {0, 5, 9}, Sampler([1.0, 2.0] * 6, [seed]), batch)

    assert written(1) == written(5) == written(12)
    assert written(1) != written(1, seed=4)
    assert len({len(tokens) for tokens in written(1)}) > 1


def test_equal_prompts_are_drawn_for_apart(tiny_model: Any) -> None:
    written = decode(tiny_model, [[7, 8]] * 4, [12] * 4, set(), Sampler([1.0] * 4, [0]))
    assert len({tuple(tokens) for tokens in written}) == 4


def test_a_low_temperature_is_greedy(tiny_model: Any) -> None:
    sampled = decode(tiny_model, prompts(), [10] * 12, {0}, Sampler([1e-6] * 12, [0]))
    assert sampled == decode(tiny_model, prompts(), [10] * 12, {0}, likeliest)


def test_suppressed_tokens_are_never_drawn(tiny_model: Any) -> None:
    tiny_model.generation_config.suppress_tokens = list(range(3, 257))
    written = decode(tiny_model, prompts(), [20] * 12, set(), Sampler([1.0] * 12, [0]))
    assert {token for tokens in written for token in tokens} == {0, 1, 2}


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Sampler([0.5, 0.0], [0])


def test_the_limit_is_the_longest_gold_completion(tiny_data: Dataset) -> None:
    items = [Item(task="t", speciality="reasoning", prompt="?", answer=a) for a in ("1", "12345")]
    assert token_limit(tiny_data.tokenizer, items) == 1 + 5 + 1 + MARGIN  # space, digits, end-of-text
    assert token_limit(tiny_data.tokenizer, []) == MARGIN


def test_several_stop_ids_are_all_used(tiny_model: Any, tiny_data: Dataset) -> None:
    tiny_model.generation_config.eos_token_id = [5, 9]
    assert stop_ids(tiny_model, tiny_data.tokenizer) == {0, 5, 9}


def test_left_pad() -> None:
    tokens, mask = left_pad([[1, 2, 3], [4]])
    assert tokens.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
