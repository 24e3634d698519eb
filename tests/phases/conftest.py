"""A real, tiny data set, models and ternary checkpoints that the phase tests share."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from phases.agent.acting import Acting
from phases.agent.conversation import TurnLimits
from phases.agent.design import Design
from phases.agent.library import EMPTY, Library
from phases.agent.settings import AgentSettings
from phases.agent.template import CHAT_TEMPLATE
from phases.agent.tool import Tool
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.storage import ternary_files
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.data.pack import pack_items
from phases.data.tokenizer import train_tokenizer
from phases.dataset import SPLITS, Dataset, open_dataset, seal_dataset
from phases.tasks.config import TasksConfig
from phases.tasks.generate import make_items
from phases.tasks.item import Item

BLOCK = 32
VOCABULARY = 257
GENERATORS = {
    "reasoning": [{"name": "chain_sum", "params": {"min_digits": 1, "max_digits": 1, "min_terms": 2, "max_terms": 3}}],
    **{"recall": {"pairs": [2], "max_queries": 1}, "needle": {"share": 0.0}, "choice_items": 0},
    "copying": {"words": 1},
    **dict.fromkeys(("reasoning_train_items", "memory_train_items", "copying_train_items"), 40),
    **dict.fromkeys(("validation_items", "test_items"), 20),
}
ROW = 64
"""Tokens of a row of `task_data`."""
FAMILIES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and an end-of-text token; no merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<|endoftext|>": 0, **{symbol: i + 1 for i, symbol in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end, pad_token=end)


def sums(count: int, start: int, speciality: str) -> list[Item]:
    """Distinct one-digit questions with a verifiable answer."""
    pairs = [(a, b) for a in range(10) for b in range(10)]
    chosen = (pairs * 3)[start : start + count]
    return [Item(task="sum", speciality=speciality, prompt=f"{a}+{b}", answer=str(a + b)) for a, b in chosen]


def fill(path: Path, rows: int = 40) -> None:
    """Blocks, items and tokenizer of a learnable toy: running bytes that repeat with period 7."""
    generator = np.random.default_rng(0)
    (path / "blocks").mkdir(parents=True)
    (path / "items").mkdir()
    for number, split in enumerate(SPLITS):
        for stream in ("text", "reasoning", "memory", "copying"):
            base = generator.integers(1, VOCABULARY, size=(rows, 7))
            tokens = np.tile(base, 6)[:, : BLOCK + 1].astype(np.uint16)
            mask = np.ones_like(tokens, dtype=np.uint8)
            if stream != "text":
                mask[:, ::2], mask[:, -4:] = 0, 2
            np.save(path / "blocks" / f"{split}.{stream}.npy", tokens, allow_pickle=False)
            np.save(path / "blocks" / f"{split}.{stream}.mask.npy", mask, allow_pickle=False)
        np.save(path / "blocks" / f"{split}.text.bytes.npy", np.full(rows, BLOCK), allow_pickle=False)
        items = sums(30, 30 * number, "reasoning") + sums(30, 30 * number, "memory")
        (path / "items" / f"{split}.jsonl").write_text("".join(i.model_dump_json() + "\n" for i in items))
    byte_tokenizer().save_pretrained(path / "tokenizer")
    seal_dataset(path, {"block_tokens": BLOCK, "vocabulary": VOCABULARY, "sources": []})


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("data") / "data"
    fill(path)
    return open_dataset(path)


@pytest.fixture(scope="session")
def make_task_data(
    tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Mapping[str, Any], int], Dataset]:
    """The toy with real tasks, rows of a length, and a card that knows the generators; running text repeats itself."""

    def make(tasks: Mapping[str, Any], row: int) -> Dataset:
        path = shutil.copytree(tiny_data.path, tmp_path_factory.mktemp("tasks") / "data")
        items = make_items(TasksConfig.parse(tasks, "test"), dict.fromkeys(SPLITS, ()), 0)
        for split in SPLITS:
            (path / "items" / f"{split}.jsonl").write_text("".join(i.model_dump_json() + "\n" for i in items[split]))
            text = np.tile(tiny_data.blocks(split, "text")[:, :7], 10)[:, : row + 1]
            arrays = {"text": text, "text.mask": np.ones_like(text, dtype=np.uint8)}
            for name in ("reasoning", "memory", "copying"):
                packed = pack_items(tiny_data.tokenizer, [i for i in items[split] if i.speciality == name], row)
                arrays |= {name: packed.tokens_NT, f"{name}.mask": packed.mask_NT}
            for name, array in arrays.items():
                np.save(path / "blocks" / f"{split}.{name}.npy", array, allow_pickle=False)
        card = {"block_tokens": row, "vocabulary": VOCABULARY, "sources": [], "config": {"tasks": tasks}}
        seal_dataset(path, card)
        return open_dataset(path)

    return make


@pytest.fixture(scope="session")
def task_data(make_task_data: Callable[[Mapping[str, Any], int], Dataset]) -> Dataset:
    return make_task_data(GENERATORS, ROW)


@pytest.fixture
def tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """Random models of a family. Their sizes are odd, so that no byte and no block is full, or follow from `hidden`."""

    def make(family: str, hidden: int | None = None, **options: Any) -> Any:
        torch.manual_seed(3)
        width, inner, head = (hidden, 3 * hidden, hidden // 4) if hidden else (36, 67, 18)
        sizes = {"vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": inner, "head_dim": head}
        heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 128, "tie_word_embeddings": True}
        model = AutoModelForCausalLM.from_config(FAMILIES[family](**{**sizes, **heads, **ends, **options}))
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "norm.weight")):
                parameter.data.normal_(1, 0.3)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def write_ternary(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Checkpoint]:
    """Folds a quantised model and writes it as the bitnet phase does, with a tokenizer of bytes where none is given."""

    def write(
        quantised: Quantised,
        out: Path | None = None,
        tokenizer: Any = None,
        tensors: Mapping[str, Any] | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> Checkpoint:
        latent, settings = ternary_files(quantised)
        quantised.fold()
        path = out or tmp_path_factory.mktemp("ternary") / "ternary"
        files = {**latent, **(tensors or {})}, {**settings, **(texts or {})}
        return save_checkpoint(path, quantised.model, tokenizer or byte_tokenizer(), Manifest("bitnet"), *files)

    return write


@pytest.fixture
def exported(write_ternary: Callable[..., Checkpoint], tmp_path: Path) -> Callable[..., Any]:
    """Rounds a model to a lattice, writes it to `model` and exports that to `model.gguf`: the report."""
    from phases.packed.gguf_export import export_gguf

    def export(model: Any, wanted: Any = "auto", group: int | None = 32, bits: Any = 8, tokenizer: Any = None) -> Any:
        quantised = Quantised(model, Quantisation(group=group, embedding_bits=bits))
        return export_gguf(write_ternary(quantised, tmp_path / "model", tokenizer), tmp_path / "model.gguf", wanted)

    return export


class Parrot(torch.nn.Module):
    """A causal model of bytes that wants to say what a script has for its prompt, and ends where it has nothing.

    `script(prompt)` gives replies, likeliest first, or pairs of a reply and its logit.
    """

    def __init__(self, tokenizer: Any, script: Callable[[str], Any]) -> None:
        super().__init__()
        self.tokenizer, self.script, self.device = tokenizer, script, torch.device("cpu")
        self.config = LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=1, max_position_embeddings=4000)
        self.generation_config = SimpleNamespace(eos_token_id=tokenizer.eos_token_id, suppress_tokens=None)
        self.widths: list[int] = []
        """Rows of every pass."""
        self._whole = cache(
            lambda text: [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        )

    @property
    def base_model(self) -> Any:
        return self

    def get_output_embeddings(self) -> Callable[[torch.Tensor], torch.Tensor]:
        return torch.clone

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, past_key_values: Any, **_: Any
    ) -> SimpleNamespace:
        seen_B1T1 = input_ids.float()[:, None, :, None]
        read_BT = past_key_values.update(seen_B1T1, seen_B1T1, 0)[0][:, 0, :, 0].long()
        self.widths.append(len(input_ids))
        wanted = [
            self._wants(read_T[mask_T > 0].tolist()) for read_T, mask_T in zip(read_BT, attention_mask, strict=True)
        ]
        hidden_BTV = torch.zeros(*input_ids.shape, len(self.tokenizer))
        hidden_BTV[:, -1] = torch.stack(wanted)
        return SimpleNamespace(last_hidden_state=hidden_BTV)

    def _wants(self, tokens: list[int]) -> torch.Tensor:
        """(V,) logits after some tokens."""
        opens = len(tokens) - tokens[::-1].index(self.tokenizer.convert_tokens_to_ids("<|assistant|>"))
        written, wanted_V = tokens[opens:], torch.zeros(len(self.tokenizer))
        replies = self.script(self.tokenizer.decode(tokens[:opens]))
        for place, reply in enumerate([replies] if isinstance(replies, str) else replies):
            text, logit = (reply, 20.0 - place) if isinstance(reply, str) else reply
            whole = self._whole(text)
            if whole[: len(written)] == written and len(whole) > len(written):
                token = whole[len(written)]
                wanted_V[token] = torch.logaddexp(wanted_V[token], torch.tensor(logit))
        if not wanted_V.any():
            wanted_V[self.tokenizer.eos_token_id] = 5.0
        return wanted_V


@pytest.fixture(scope="session")
def act() -> Callable[..., Acting]:
    """An agent of the design's settings, e.g. `act(script, tools, calling={"retries": 1})`.

    `script` is a parrot's, or a function of an expert's name that gives a model. Its model is `.minds.model(…)`.
    """
    tokenizer = train_tokenizer(["a"], 260)  # bytes, and four special tokens
    tokenizer.chat_template = CHAT_TEMPLATE

    def make(
        script: Callable[[str], Any],
        tools: Sequence[Tool] = (),
        library: Library = EMPTY,
        limits: TurnLimits | None = None,
        experts: Sequence[str] = (),
        context_tokens: int = 4000,
        options: Mapping[str, Any] | None = None,
        **design: Any,
    ) -> Acting:
        models = {
            expert: Parrot(tokenizer, partial(script, expert) if expert else script) for expert in (None, *experts)
        }
        minds = SimpleNamespace(
            tokenizer=tokenizer,
            experts=SimpleNamespace(names=tuple(experts)) if experts else None,
            model=lambda _, expert=None: models[expert],
        )
        wanted = {"limits": limits or TurnLimits(), "design": Design.model_validate(design)}
        settings = AgentSettings(tools=(), context_tokens=context_tokens, **wanted)
        return Acting(minds, tools, settings, library=library, **(options or {}))

    return make
