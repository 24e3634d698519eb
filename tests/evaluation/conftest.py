"""A tiny world where every judgement has something to find: real tokenizer, data, and a family of trained models.

Text is two interleaved counters: the next token follows from the token before last, so a bigram knows nothing and a
small Llama soon everything. Items are sums and recalls of bytes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from phases.checkpoint import Checkpoint, Manifest, save_checkpoint, save_family
from phases.dataset import SPLITS, Dataset, open_dataset, seal_dataset
from phases.exits import exit_hidden_states
from phases.probe import encode_items
from phases.tasks.item import Item

BLOCK, VOCABULARY, COUNTER = 24, 257, 16
UNLEARN = -1.0
"""Weight of the early exit in models that must not have one: its loss is pushed above 3 nats."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(vocab={end: 0, **{s: i + 1 for i, s in enumerate(alphabet)}}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end, pad_token=end)


def counters(rows: int, seed: int) -> np.ndarray:
    """(rows, T+1): even places count from one start, odd places from another, modulo 16."""
    start = np.random.default_rng(seed).integers(COUNTER, size=(rows, 2))
    step = np.arange(BLOCK + 1)
    return (40 + (start[:, step % 2] + step // 2) % COUNTER).astype(np.uint16)


def make_items(split: int) -> list[Item]:
    sums = [(a, b) for a in range(10) for b in range(10)][split::3]
    items = [
        Item(task="sum", speciality="reasoning", prompt=f"{a}+{b}", answer=str(a + b), difficulty=1 + (a + b > 9))
        for a, b in sums
    ]
    generator = np.random.default_rng(split)
    for i in range(30):
        pairs = 1 + i % 2
        keys, values = generator.permutation(list("abcdefgh"))[:pairs], generator.integers(10, size=pairs)
        facts = " ".join(f"{k}{v}" for k, v in zip(keys, values, strict=True))
        prompt = f"{facts} {keys[0]}?"
        items.append(Item(task="recall", speciality="memory", prompt=prompt, answer=str(values[0]), difficulty=pairs))
    for a in range(12):
        choices = tuple(str(n) for n in (a, a + 1, 100 + a, 7 * a + 3))
        items.append(Item(task="cloze", speciality="choice", prompt=f"after {a}", answer=choices[1], choices=choices))
    return items


def fill(path: Path, rows: int = 40) -> None:
    (path / "blocks").mkdir(parents=True)
    (path / "items").mkdir()
    for number, split in enumerate(SPLITS):
        tokens = counters(rows, number)
        np.save(path / "blocks" / f"{split}.text.npy", tokens, allow_pickle=False)
        np.save(path / "blocks" / f"{split}.text.mask.npy", np.ones_like(tokens, dtype=np.uint8), allow_pickle=False)
        sizes = BLOCK - np.arange(rows) % 3
        np.save(path / "blocks" / f"{split}.text.bytes.npy", sizes.astype(np.int64), allow_pickle=False)
        lines = [item.model_dump_json() + "\n" for item in make_items(number)]
        (path / "items" / f"{split}.jsonl").write_text("".join(lines))
    byte_tokenizer().save_pretrained(path / "tokenizer")
    seal_dataset(path, {"block_tokens": BLOCK, "vocabulary": VOCABULARY, "sources": []})


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(
        **{"vocab_size": VOCABULARY, "intermediate_size": 64, "max_position_embeddings": 128, **shape, **changes},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def teach(model: Any, steps: int, text: torch.Tensor, items: list[Item], half: float = 0.0) -> Any:
    """A few AdamW steps on text blocks and on the items' completions; `half` weighs the exit after layer 1.

    The rate warms up and falls to nothing and gradients are clipped: at a constant rate the last step may be a spike,
    and which answers are learned hangs on the processor's rounding.
    """
    batches = encode_items(byte_tokenizer(), items) if items else []
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 10) * (1 - step / steps))
    for _ in range(steps):
        early, full = exit_hidden_states(model, text[:, :-1], (1, len(model.model.layers)))
        exit_loss = _loss(model, early, text)
        loss = _loss(model, full, text) + (half * exit_loss if half >= 0 else -half * torch.relu(3 - exit_loss))
        for batch in batches:
            hidden = model.model(input_ids=batch.tokens_BT).last_hidden_state[:, :-1][batch.answer_BT[:, 1:]]
            loss = loss + 3 * torch.nn.functional.cross_entropy(
                model.lm_head(hidden), batch.tokens_BT[:, 1:][batch.answer_BT[:, 1:]]
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


def _loss(model: Any, hidden: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model.lm_head(hidden).flatten(0, 1), text[:, 1:].flatten())


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("world") / "data"
    fill(path)
    return open_dataset(path)


@pytest.fixture
def tiny_model() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture(scope="session")
def family(world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A cognate checkpoint: each branch was taught its own speciality (on the judged items themselves)."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("family")
    text = torch.from_numpy(world.blocks("train", "text").astype(np.int64))
    trunk = teach(tiny_llama(), 150, text, [], UNLEARN)
    lessons = {
        "reasoning": (200, world.items("test", "reasoning"), UNLEARN),
        "memory": (150, world.items("test", "memory"), UNLEARN),
        "adaptive": (200, [], 2.0),
        "control": (10, [], UNLEARN),
    }
    save_checkpoint(root / "trunk", trunk, world.tokenizer, Manifest("cognate"))
    for name, (steps, items, half) in lessons.items():
        model = tiny_llama()
        model.load_state_dict(trunk.state_dict())
        manifest = Manifest(f"cognate/{name}", metrics={"steps": steps, "tokens": steps * text.numel()})
        save_checkpoint(root / name, teach(model, steps, text, items, half), world.tokenizer, manifest)
    return save_family(root / "cognate", root / "trunk", {name: root / name for name in lessons})


@pytest.fixture(scope="session")
def parent(world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model that was taught nothing."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True, "max_position_embeddings": 512}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=world.vocabulary, num_key_value_heads=2, **sizes, **ends)).eval()
    return save_checkpoint(tmp_path_factory.mktemp("p") / "parent", model, world.tokenizer, Manifest("own"))
