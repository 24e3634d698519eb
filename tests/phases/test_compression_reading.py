"""Held-out rows read from a changed matrix's layer on: the bits of a whole reading, whatever order layers have."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaForCausalLM

from phases.compression.calibration import Calibration, held_out
from phases.compression.lessons import Lessons
from phases.compression.reading import MICRO, Reading
from phases.dataset import Dataset

torch.manual_seed(5)
TOKENS = torch.randint(1, 257, (2 * MICRO + 1, 22))
COUNTS = torch.rand(2 * MICRO + 1, 21) < 0.4


def neox() -> Any:
    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=257, max_position_embeddings=64, **sizes)).eval()


@pytest.fixture(params=["llama", "qwen2", "qwen3", "mistral", "windows", "gpt_neox"])
def model(request: pytest.FixtureRequest, make_model: Callable[..., Any]) -> Any:
    """`windows`: its layers are called with different masks."""
    if request.param == "gpt_neox":
        return neox()
    if request.param == "windows":
        mixed = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
        made = make_model("qwen2", 32, num_hidden_layers=3, **mixed)
        assert len(set(made.config.layer_types)) == 2
        return made
    return make_model(request.param, 32, num_hidden_layers=3)


def matrices(model: Any) -> list[str]:
    return [name for name, p in model.named_parameters() if p.ndim == 2]


@pytest.mark.parametrize("order", [1, -1], ids=["onwards", "backwards"])
def test_the_bits_are_those_of_a_whole_reading(model: Any, order: int) -> None:
    reading, params = Reading(TOKENS, COUNTS), dict(model.named_parameters())
    plain = reading.hidden(model)
    assert plain.shape == (int(COUNTS.sum()), 32)
    for name in matrices(model)[::order]:
        before = params[name].data
        params[name].data = before * 0.5
        assert torch.equal(reading.hidden(model, changed=name), reading.hidden(model)), name
        params[name].data = before
    assert torch.equal(reading.hidden(model), plain)


def test_no_layer_before_the_changed_one_is_read(tiny_model: LlamaForCausalLM) -> None:
    reading, read = Reading(TOKENS, COUNTS), [0, 0, 0]

    def count(number: int) -> Callable[..., None]:
        def hook(*_: object) -> None:
            read[number] += 1

        return hook

    last = "model.layers.2.mlp.up_proj.weight"
    reading.hidden(tiny_model, changed=last)
    for number, layer in enumerate(tiny_model.model.layers):
        layer.register_forward_hook(count(number))
    for _ in range(5):
        reading.hidden(tiny_model, changed=last)
    assert read == [0, 0, 5 * 3]


def test_a_trial_costs_no_accuracy(tiny_model: LlamaForCausalLM, tiny_data: Dataset) -> None:
    calibration = Calibration(tiny_model, held_out(tiny_data, Lessons((), {}, 32), 3, 0))
    for name in matrices(tiny_model):
        param = dict(tiny_model.named_parameters())[name]
        before = param.data
        param.data = 20 * before.roll(1, 0)
        assert calibration.divergence(tiny_model, changed=name) == calibration.divergence(tiny_model) > 0
        param.data = before
