"""The leak detector: silent on causal models, exact on leaking ones."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from evaluation.causality import assert_causal, first_leak
from phases.checkpoint import Checkpoint
from phases.cognate.shape import PRESETS, llama_config
from phases.evomerge.build import build_model
from phases.evomerge.genome import Genome
from phases.evomerge.parents import load_parents

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


SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_is_causal(preset: Any) -> None:
    assert_causal(LlamaForCausalLM(llama_config(PRESETS[preset], 64, 0)).eval(), TOKENS)


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (Qwen2Config(**SIZES), Qwen2ForCausalLM),
        (Qwen3Config(**SIZES, head_dim=8), Qwen3ForCausalLM),
        (MistralConfig(**SIZES, sliding_window=4), MistralForCausalLM),
    ],
)
def test_every_family_that_may_be_a_base_is_causal(config: Any, model: Any) -> None:
    assert_causal(model(config).eval(), TOKENS)


@pytest.mark.parametrize(
    "genome",
    [
        Genome(method="linear", weights=(0.4, 0.3, 0.2)),
        Genome(method="ties", weights=(1.0, 0.5, 0.5), densities=(0.5, 0.5, 0.5)),
        Genome(method="dare_ties", weights=(1.0, 0.5, 0.5), densities=(0.5, 0.5, 0.5)),
        Genome(method="frankenmerge", slices=((1, 0, 2), (2, 0, 2))),
        Genome(method="dfs", slices=((0, 0, 1), (1, 0, 2), (0, 1, 2)), scales=(1.0, 0.9, 1.1, 1.0)),
    ],
    ids=lambda genome: genome.method,
)
def test_every_merge_is_causal(genome: Genome, family: Checkpoint) -> None:
    names = ("trunk", "adaptive", "memory", "reasoning")
    paths = (str(family.path), *(str(family.siblings[name].path) for name in names[1:]))
    assert_causal(build_model(genome, load_parents(paths, names)), TOKENS)
