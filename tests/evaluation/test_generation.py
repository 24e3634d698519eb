"""Greedy decoding against transformers' own, token by token."""

import random
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from evaluation.generation import exact_match, greedy
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.decoding import encode
from phases.probe import encode_items, solved
from phases.tasks.item import Item, render_prompt

SMALL = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": 0,
    "bos_token_id": 0,
}


def prompts(count: int = 16) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(1, 257) for _ in range(rng.randrange(1, 30))] for _ in range(count)]


def reference(model: Any, prompt: list[int], limit: int, stop: int = 0) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=stop,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def common_token(model: Any) -> int:
    """A token that the model often writes, so that stopping at it happens at many places."""
    written = [token for tokens in greedy(model, prompts(), 20, set()) for token in tokens]
    return max(set(written), key=written.count)


def test_equal_to_generate(tiny_model: Any) -> None:
    stop = common_token(tiny_model)
    ours = greedy(tiny_model, prompts(), 20, {stop}, batch=8)
    assert ours == [reference(tiny_model, prompt, 20, stop) for prompt in prompts()]
    assert len({len(tokens) for tokens in ours}) > 1  # rows did leave the batch at different times


@pytest.mark.parametrize(
    ("config", "build"),
    [
        (MistralConfig(**SMALL, head_dim=8, sliding_window=None), MistralForCausalLM),
        (Qwen2Config(**SMALL), Qwen2ForCausalLM),
        (Qwen3Config(**SMALL, head_dim=8), Qwen3ForCausalLM),
    ],
)
def test_equal_to_generate_for_other_families(config: Any, build: Any) -> None:
    model = build(config).eval()
    assert greedy(model, prompts(6), 12, {0}) == [reference(model, prompt, 12) for prompt in prompts(6)]


def test_equal_to_generate_for_trained_models(family: Checkpoint, world: Dataset) -> None:
    model, tokenizer = family.siblings["memory"].model(), world.tokenizer
    asked = [encode(tokenizer, render_prompt(tokenizer, item.prompt)) for item in world.items("test", "memory")]
    assert greedy(model, asked, 10, {0}) == [reference(model, prompt, 10) for prompt in asked]


def test_eight_ones_equal_one_eight(tiny_model: Any) -> None:
    assert greedy(tiny_model, prompts(8), 16, {0}, batch=1) == greedy(tiny_model, prompts(8), 16, {0}, batch=8)


def test_exact_match_equals_the_probe_where_answers_have_one_form(family: Checkpoint, world: Dataset) -> None:
    model, items = family.siblings["memory"].model(), world.items("test", "memory")
    answers = exact_match(model, world.tokenizer, items)
    probe = solved(model, encode_items(world.tokenizer, items))
    assert answers.right_N.tolist() == [bool(p) for p in probe]
    assert answers.right_N.mean() > 0


def test_worked_steps_count_by_their_answer(world: Dataset, monkeypatch: pytest.MonkeyPatch, tiny_model: Any) -> None:
    item = Item(task="t", speciality="reasoning", prompt="1+1+1", answer="3", steps="1+1=2 2+1=3")
    texts = {" other steps #### 3\nand more": True, " #### 2 #### 3": True, " 3 #### 4": False, "": False, " 3": True}
    for text, right in texts.items():
        written = [encode(world.tokenizer, text)]
        monkeypatch.setattr("evaluation.generation.greedy", lambda *a, w=written, **k: w)
        assert exact_match(tiny_model, world.tokenizer, [item]).right_N.tolist() == [right], text


def test_an_empty_prompt_is_refused(tiny_model: Any) -> None:
    with pytest.raises(ValueError, match="has no tokens"):
        greedy(tiny_model, [[1], []], 4, {0})
