"""An agent's conversations: rows of a student's lesson, and what of them a student keeps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.night import conversations
from distillation.night.conversations import conversation_criteria
from distillation.training.beside_records import Shares, beside_records, is_agent
from phases.agent.settings import SETTINGS, AgentSettings
from phases.agent.template import with_tools
from phases.baking.config import CONVERSATIONS, BakingConfig
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.data.tokenizer import train_tokenizer
from phases.dataset import SPLITS, Dataset, open_dataset, seal_dataset
from phases.tasks.item import Item

T = 512
BAKED = BakingConfig.parse(
    {
        "scenarios": {"train": {"python": 6, "memory": 6, "persona": 6}, "held_out": 3, "distractors": [0]},
        "tools": {"names": ["python", "remember", "recall"], "limits": {"new_tokens": 4}},
    },
    "test",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("world") / "data"
    (path / "blocks").mkdir(parents=True)
    (path / "items").mkdir()
    tokens = np.random.default_rng(0).integers(4, 260, size=(9, T + 1)).astype(np.uint16)
    for split in SPLITS:
        np.save(path / "blocks" / f"{split}.text.npy", tokens)
        np.save(path / "blocks" / f"{split}.text.mask.npy", np.ones_like(tokens, dtype=np.uint8))
        item = Item(task="sum", speciality="reasoning", prompt=f"{split}?", answer="3", difficulty=1)
        (path / "items" / f"{split}.jsonl").write_text(item.model_dump_json() + "\n")
    train_tokenizer(["def add(a, b): return a + b"] * 50, 260).save_pretrained(path / "tokenizer")
    seal_dataset(path, {"block_tokens": T, "vocabulary": 260})
    return open_dataset(path)


def save(path: Path, data: Dataset, texts: dict[str, str], seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 2048, "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=260, **sizes, **ends)).eval()  # type: ignore[arg-type]
    return save_checkpoint(path, model, with_tools(data.tokenizer), Manifest("baking"), texts=texts)


@pytest.fixture(scope="module")
def agent(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    settings = AgentSettings(tools=BAKED.tools.names, limits=BAKED.tools.limits, context_tokens=256)
    texts = {SETTINGS: settings.model_dump_json(), CONVERSATIONS: BAKED.model_dump_json()}
    return save(tmp_path_factory.mktemp("agent") / "agent", data, texts)


def shares(**changes: float) -> Shares:
    return Shares(**{"text": 0.25, "conversations": 0.25, "mix": {"text": 1.0}, **changes})  # type: ignore[arg-type]


def test_rows_have_their_shares(data: Dataset, agent: Checkpoint) -> None:
    rows = beside_records(data, agent, 4, shares(), T, 0)
    assert rows is not None and rows.tokens_NT.shape == (4, T + 1)
    np.testing.assert_allclose(rows.weight_NT.sum(1), 1, rtol=1e-5)
    assert (rows.weight_NT[:2] > 0).all()  # text counts everywhere
    assert ((rows.weight_NT[2:] == 0).mean(1) > 0.1).all()  # of a conversation what the assistant says
    learnt = zip(rows.tokens_NT[2:], rows.weight_NT[2:], strict=True)
    said = [data.tokenizer.decode(tokens[1:][weight > 0]) for tokens, weight in learnt]
    assert any('"name"' in text for text in said) and not any("<|user|>" in text for text in said)


def test_rows_are_of_the_seed_and_never_repeated(data: Dataset, agent: Checkpoint) -> None:
    every = [beside_records(data, agent, 10_000, shares(text=0.0), T, seed) for seed in (0, 0, 1)]
    first, again, other = (rows.tokens_NT for rows in every if rows is not None)
    assert first.tolist() == again.tolist() != other.tolist()
    assert len(first) < 18 and len({tuple(row) for row in first.tolist()}) == len(first)


def test_who_is_no_agent_has_text_alone(data: Dataset, agent: Checkpoint, tmp_path: Path) -> None:
    plain = save(tmp_path / "plain", data, {})
    assert is_agent(agent) and not is_agent(plain)
    rows = beside_records(data, plain, 6, shares(), T, 0)
    assert rows is not None and len(rows.tokens_NT) == 2
    assert beside_records(data, plain, 6, shares(text=0.0), T, 0) is None
    assert conversation_criteria(agent, plain, data, 2, tmp_path) == []
    assert beside_records(data, agent, 6, shares(text=0.0), 16, 0) is None  # no conversation is so short


def test_both_talk_and_are_compared(
    data: Dataset, agent: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert conversation_criteria(agent, agent, data, 0, tmp_path) == []
    assert (
        conversation_criteria(agent, agent, data, 2, tmp_path / "talks") == []
    )  # it can do nothing, so there is nothing to keep
    student = save(tmp_path / "student", data, {n: (agent.path / n).read_text() for n in (SETTINGS, CONVERSATIONS)}, 1)
    real = conversations.Player.of

    class Gifted:
        """The teacher's conversations come out right, but those about facts."""

        def __init__(self, checkpoint: Checkpoint) -> None:
            self.right, self.player = checkpoint.path == agent.path, real(checkpoint)

        def play(self, course: Any, trials: Any, batch: int) -> Any:
            played = self.player.play(course, trials, batch)
            if self.right:
                for domain, values in played.right.items():
                    values[:] = domain != "facts"
            return played

    monkeypatch.setattr(conversations.Player, "of", Gifted)
    kept = tmp_path / "more"
    found = {one.name: one for one in conversation_criteria(student, agent, data, 3, kept)}
    assert set(found) == {"conversations", "manner"}
    spoken = found["conversations"]
    assert (spoken.kind, spoken.role, len(spoken.student), spoken.teacher.mean()) == ("right", "gate", 3, 1)
    assert spoken.student.sum() == 0 and found["manner"].kind == "graded"
    monkeypatch.setattr(conversations.Player, "of", None)  # both have talked
    again = conversation_criteria(student, agent, data, 3, kept)
    assert [one.student.tolist() for one in again] == [one.student.tolist() for one in found.values()]
    assert len(list(kept.iterdir())) == 2
