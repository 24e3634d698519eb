"""Multiple choice against a plain loop over the choices."""

from typing import Any

import numpy as np
import pytest
import torch

from evaluation.choice import multiple_choice
from phases.dataset import Dataset
from phases.decoding import encode
from phases.tasks.item import Item, render_prompt


def slow(model: Any, tokenizer: Any, item: Item) -> np.ndarray:
    prompt = encode(tokenizer, render_prompt(tokenizer, item.prompt))
    sums = []
    for choice in item.choices:
        answer = encode(tokenizer, " " + choice)
        log = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        sums.append(sum(log[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)))
    return np.array(sums)


def test_equal_to_a_plain_loop(tiny_model: Any, world: Dataset) -> None:
    items = world.items("test", "choice")
    result = multiple_choice(tiny_model, world.tokenizer, items, batch=5)
    for i, item in enumerate(items):
        sums, gold = slow(tiny_model, world.tokenizer, item), item.choices.index(item.answer)
        assert result.right_sum_N[i] == (sums.argmax() == gold)
        assert result.right_N[i] == ((sums / [len(c.encode()) for c in item.choices]).argmax() == gold)


def test_length_matters_for_the_sum_only(tiny_model: Any, world: Dataset) -> None:
    """An untrained model pays about ln V a token: the sum takes the shortest choice, the mean does not have to."""
    items = [
        Item(task="t", speciality="choice", prompt=f"q{i}", answer="a" * 9, choices=("a", "b" * 9, "a" * 9, "c" * 9))
        for i in range(10)
    ]
    result = multiple_choice(tiny_model, world.tokenizer, items)
    assert not result.right_sum_N.any()
    assert result.right_N.any()


def test_an_answer_outside_the_choices_is_refused(tiny_model: Any, world: Dataset) -> None:
    item = Item(task="t", speciality="choice", prompt="?", answer="z", choices=("a", "b"))
    with pytest.raises(ValueError, match="'z' is not among the choices"):
        multiple_choice(tiny_model, world.tokenizer, [item])
