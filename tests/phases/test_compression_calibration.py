"""Held-out rows: divergence against a closed form, answers that are right as decoding would have them, importances."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from phases.compression.calibration import Calibration, HeldOut, held_out, importances, retention
from phases.compression.lessons import Lessons
from phases.dataset import Dataset


@pytest.fixture
def streams(tiny_data: Dataset) -> dict[str, HeldOut]:
    return held_out(tiny_data, Lessons((), (), 32), 3, 0)


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


def test_an_answer_is_right_when_greedy_decoding_writes_it(tiny_model: LlamaForCausalLM) -> None:
    prompt = torch.arange(5)[None]
    written = tiny_model.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)[0]
    wrong = written.clone()
    wrong[-1] = (wrong[-1] + 1) % 257
    counts = torch.zeros(2, 10, dtype=torch.bool)
    counts[:, 4:6] = True  # two answers in a row of tokens: the first two of what was written,
    counts[:, 7:10] = True  # and the last three
    stream = HeldOut(torch.stack((written, wrong)), counts, whole=True)
    right = Calibration(tiny_model, {"tasks": stream}).standing(tiny_model)["tasks"]
    assert right.tolist() == [1.0, 1.0, 1.0, 0.0]


def test_of_text_every_token_counts(tiny_model: LlamaForCausalLM, streams: dict[str, HeldOut]) -> None:
    found = Calibration(tiny_model, streams).standing(tiny_model)["text"]
    assert len(found) == int(streams["text"].counts_BT.sum())


def test_retention_leaves_out_what_the_parent_cannot_do() -> None:
    parent = {"a": np.array([1.0, 1.0, 0.0, 0.0]), "b": np.zeros(3), "c": np.array([1.0])}
    ours = {"a": np.array([0.0, 1.0, 0.0, 0.0]), "b": np.ones(3), "c": np.array([1.0])}
    assert retention(ours, parent) == pytest.approx((0.5 + 1.0) / 2)


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
