"""Held-out rows: divergence against a closed form, and importances."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from phases.compression.calibration import Calibration, HeldOut, held_out, importances
from phases.compression.lessons import Lessons
from phases.dataset import Dataset


@pytest.fixture
def streams(tiny_data: Dataset) -> dict[str, HeldOut]:
    return held_out(tiny_data, Lessons((), {}, 32), 3, 0)


def test_rows_are_of_the_validation_split_and_say_what_counts(tiny_data: Dataset, streams: dict[str, HeldOut]) -> None:
    assert streams.keys() <= set(tiny_data.streams("validation")) and "text" in streams
    for name, stream in streams.items():
        assert np.array_equal(stream.tokens_BT.numpy(), tiny_data.blocks("validation", name)[:3])
        assert torch.equal(stream.counts_BT, torch.from_numpy(tiny_data.mask("validation", name)[:3, 1:] == 1))


def test_divergence_is_the_mean_kl(tiny_model: LlamaForCausalLM, streams: dict[str, HeldOut]) -> None:
    calibration = Calibration(tiny_model, streams)
    assert calibration.divergence(tiny_model) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        before = {n: tiny_model(s.tokens_BT[:, :-1]).logits[s.counts_BT].log_softmax(-1) for n, s in streams.items()}
        tiny_model.model.layers[0].mlp.up_proj.weight.mul_(3)
        after = {n: tiny_model(s.tokens_BT[:, :-1]).logits[s.counts_BT].log_softmax(-1) for n, s in streams.items()}
    kl = [float((before[n].exp() * (before[n] - after[n])).sum(-1).mean()) for n in streams]
    assert calibration.divergence(tiny_model) == pytest.approx(np.mean(kl), rel=1e-4, abs=1e-5) and min(kl) > 0


def test_importances_are_the_mean_squares_of_inputs(tiny_model: LlamaForCausalLM, streams: dict[str, HeldOut]) -> None:
    seen: list[torch.Tensor] = []
    layer = tiny_model.model.layers[1].mlp.down_proj
    hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    found = importances(tiny_model, streams)
    hook.remove()
    inputs = torch.cat([x.flatten(0, 1) for x in seen]).double()
    ratio = found["model.layers.1.mlp.down_proj.weight"].double() / inputs.square().mean(0)
    torch.testing.assert_close(ratio / ratio.mean(), torch.ones_like(ratio), rtol=1e-4, atol=0)
    assert found["model.embed_tokens.weight"].shape == (32,) and len(found) == 22  # the tied head's
