"""Early exits are those of transformers: speculative decoding through them writes exactly the greedy text."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from phases.cognate.layerskip import EarlyExit
from phases.dataset import Dataset
from phases.exits import exit_hidden_states
from phases.probe import Batch, build_probe, encode_items, half_depth_accuracy, mean_score, solved
from phases.training.batches import Mixture
from phases.training.config import TrainingConfig
from phases.training.loop import train

CONFIG = TrainingConfig(steps=80, batch_rows=16, learning_rate=0.01)


def train_loss(model: LlamaForCausalLM, data: Dataset, depth: int) -> float:
    rows = torch.from_numpy(data.blocks("train", "text").astype("int64"))
    with torch.inference_mode():
        logits = model.lm_head(exit_hidden_states(model, rows[:, :-1], (depth,))[0])
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()))


@pytest.fixture
def trained(tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path) -> LlamaForCausalLM:
    mixture = Mixture(tiny_data, {"text": 1.0}, 0, 0.0)
    train(EarlyExit(tiny_model, 0.1, 1.0), mixture, CONFIG, tmp_path, name="t", seed=0)
    return tiny_model.eval()


def test_training_lets_early_layers_speak(trained: LlamaForCausalLM, tiny_data: Dataset) -> None:
    torch.manual_seed(1)
    fresh = LlamaForCausalLM(trained.config).eval()
    for depth in (1, 2, 3):
        assert train_loss(trained, tiny_data, depth) < train_loss(fresh, tiny_data, depth) - 0.5


@pytest.mark.parametrize("depth", [1, 2])
def test_early_exit_decoding_is_greedy_decoding(trained: LlamaForCausalLM, depth: int) -> None:
    prompt = torch.tensor([[5, 9, 200, 31, 5, 9, 200]])
    settings = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    plain = trained.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)
    early = trained.generate(prompt, attention_mask=torch.ones_like(prompt), assistant_early_exit=depth, **settings)
    assert torch.equal(plain, early) and plain.shape[1] == 27


def test_a_probe_solves_exactly_what_greedy_decoding_writes(trained: LlamaForCausalLM) -> None:
    batches, expected = [], []
    for index in range(12):
        prompt = torch.randint(1, 257, (1, 5 + index))
        row = trained.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=None)
        changed = index % 2  # every other completion differs from the decoded one in one token
        row[0, -1 - index % 4] = (row[0, -1 - index % 4] + changed) % 257
        marks = torch.zeros_like(row, dtype=torch.bool)
        marks[:, prompt.shape[1] :] = True
        batches.append(Batch(row, marks, [index]))
        expected.append(1.0 - changed)
    assert solved(trained, batches).tolist() == expected


def test_padding_and_batching_do_not_change_a_probe(trained: LlamaForCausalLM, tiny_data: Dataset) -> None:
    items = tiny_data.items("train")
    together = solved(trained, encode_items(tiny_data.tokenizer, items, batch=16))
    alone = solved(trained, encode_items(tiny_data.tokenizer, items, batch=1))
    assert together.tolist() == alone.tolist()


def test_probe_scores_have_one_value_a_unit(trained: LlamaForCausalLM, tiny_data: Dataset) -> None:
    scores = build_probe(tiny_data, "validation", 7, 5).score(trained)
    assert {name: len(values) for name, values in scores.items()} == {"reasoning": 7, "memory": 7, "adaptive": 5}
    rows = torch.from_numpy(tiny_data.blocks("validation", "text")[:5].astype("int64"))
    assert scores["adaptive"].tolist() == half_depth_accuracy(trained, rows, batch=2).tolist()
    assert 0 <= mean_score(scores) <= 1
