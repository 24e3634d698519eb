"""What is read of the validation split: replies as decoding would have them, questions, text, and the groups."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from phases.baking.rows import Encoded
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.compression.lessons import Lessons
from phases.compression.standing import Standing, _batches, open_exams, replies, spread
from phases.dataset import Dataset


@pytest.fixture
def parent(tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path) -> Checkpoint:
    return save_checkpoint(tmp_path / "parent", tiny_model, tiny_data.tokenizer, Manifest("cognate"))


def conversation(model: LlamaForCausalLM, first: int, wrong: bool) -> Encoded:
    """Two replies as the model would write them, the second with a wrong last token."""
    prompt = torch.arange(first, first + 5)[None]
    made = model.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)[0].tolist()
    made[-1] = (made[-1] + wrong) % 257
    return Encoded(made, [False] * 5 + [True, True, False, True, True, True], [-1] * 11)


def test_a_reply_is_right_when_greedy_decoding_writes_it(tiny_model: LlamaForCausalLM) -> None:
    longer = Encoded([7] * 20, [False] * 19 + [True], [-1] * 20)
    told = [longer, conversation(tiny_model, 0, wrong=False), conversation(tiny_model, 9, wrong=True)]
    share_N = replies(tiny_model, _batches(told))
    assert share_N[1:].tolist() == [1.0, 0.5]  # in their own order, whatever is padded


def test_items_are_of_the_validation_split_and_text_is_what_the_model_pays(
    tiny_model: LlamaForCausalLM, parent: Checkpoint, tiny_data: Dataset
) -> None:
    exams = open_exams(parent, tiny_data, Lessons((), {}, 32), items=10, blocks=4)
    assert {name: sum(len(b.index) for b in found) for name, found in exams.questions.items()} == {
        "reasoning": 10,
        "memory": 10,
    }
    assert np.array_equal(exams.text_NT.numpy(), tiny_data.blocks("validation", "text")[[0, 10, 20, 30]])
    paid_N, _ = Standing(tiny_model, exams).kept(tiny_model).text
    with torch.no_grad():
        logits = tiny_model(exams.text_NT[:, :-1]).logits.log_softmax(-1)
    wanted_N = -logits.gather(-1, exams.text_NT[:, 1:, None]).sum((1, 2))
    np.testing.assert_allclose(paid_N, wanted_N.numpy(), rtol=1e-5)


def test_the_parent_keeps_all_of_itself_and_a_worse_model_less(
    tiny_model: LlamaForCausalLM, parent: Checkpoint, tiny_data: Dataset
) -> None:
    lessons = Lessons((), {"python": tuple(conversation(tiny_model, i, wrong=False) for i in range(4))}, 32)
    standing = Standing(tiny_model, open_exams(parent, tiny_data, lessons, items=30, blocks=8))
    whole = standing.kept(tiny_model)
    assert whole.mean == 1 and whole.stderr == 0 and set(whole.domains) == {"python", "reasoning", "recall"}
    with torch.no_grad():
        tiny_model.model.norm.weight.mul_(-1)
    worse = standing.kept(tiny_model)
    assert worse.groups["domains"][0] == 0 and 0 < worse.mean < 1


def test_a_spread_has_all_parts() -> None:
    assert spread(range(10), 4) == [0, 2, 5, 7] and spread(range(3), 9) == [0, 1, 2] and spread([], 3) == []
