"""llama.cpp against transformers: the same tokens for the same text, and the same next tokens.

llama-cpp-python is no dependency. It is looked for in this interpreter, or in the one that FORGE_LLAMA_PYTHON names:

    make llama && pytest -m slow tests/phases/test_gguf_llama_cpp.py
"""

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

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

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.tensors import ternary_names
from phases.compression.artefact import gguf_parts, write_artefact
from phases.compression.stored import Coding, Stored
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.data.tokenizer import train_tokenizer
from phases.packed.gguf_export import export_gguf

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CONFIGS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
SEQUENCES, LENGTH, VOCABULARY = 20, 50, 512  # 1,000 positions
USED = 200  # tokens of the toy
BOOK = VPTQ(vector=2, codebook_size=256)
WORKER = """
import json, sys
import numpy as np
from llama_cpp import Llama

job = json.load(sys.stdin)
llama = Llama(job["model"], n_ctx=128, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
argmax = []
for tokens in job["sequences"]:
    llama.reset()
    llama.eval(tokens)
    argmax.append(np.argmax(llama.scores[: len(tokens)], -1).tolist())
print(json.dumps({
    "argmax": argmax,
    "tokens": [llama.tokenize(t.encode(), add_bos=True, special=True) for t in job["texts"]],
    "texts": [llama.detokenize(t, special=True).decode(errors="replace") for t in job["sequences"]],
}))
"""


@pytest.fixture(scope="module")
def llama_python() -> str:
    """An interpreter that has llama.cpp."""
    named = os.environ.get("FORGE_LLAMA_PYTHON")
    if named is None and importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama.cpp is missing: run make llama, or name an interpreter in FORGE_LLAMA_PYTHON")
    return named or sys.executable


def ask_llama(python: str, model: Path, sequences: Any = (), texts: Any = ()) -> dict[str, Any]:
    """What llama.cpp makes of token sequences (the next token at every position) and of texts (their tokens)."""
    job = json.dumps({"model": str(model), "sequences": list(sequences), "texts": list(texts)})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([python, "-c", WORKER], input=job, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def tokenizer() -> Any:
    words = (
        "the cat sat on the mat, and then 12 other cats' 345 tails weren't there: “naïve” café, größer, 日本語 — ok?"
    )
    words += "\n\n  x = y + 1;"
    return train_tokenizer([words * 3, "def f(x):\n    return x\n" * 5, words.upper() * 2], 380)


def sequences(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """(count, length) tokens of which each follows from the one two before it, by a fixed permutation.

    So the model has to attend to a place, and wrong rotary embeddings or row orders cost it everything.
    """
    rule = torch.randperm(USED, generator=torch.Generator().manual_seed(7))
    tokens_BT = torch.randint(0, USED, (count, length), generator=generator)
    for t in range(2, length):
        tokens_BT[:, t] = rule[tokens_BT[:, t - 2]]
    return tokens_BT


def teach(quantised: Quantised, steps: int) -> None:
    """Teach the rule through the lattice."""
    model, generator = quantised.model, torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, 2 * (1 - s / steps)))
    for _ in range(steps):
        tokens_BT = sequences(24, 24, generator)
        loss = model(input_ids=tokens_BT, labels=tokens_BT).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    ("kind", "hidden", "quantisation", "options", "ternary_types"),
    [
        ("llama", 128, Quantisation(group=128), {}, {"auto": "Q4_0", "f16": "F16"}),
        ("llama", 256, Quantisation(group=256), {}, {"auto": "TQ2_0", "tq1_0": "TQ1_0", "q4_0": "Q4_0"}),
        ("mistral", 128, Quantisation(group=None), {"intermediate_size": 224}, {"auto": "Q4_0"}),
        ("qwen2", 128, Quantisation(group=64), {}, {"auto": "Q4_0"}),
        ("qwen3", 128, Quantisation(group=128, embedding_bits=None), {"head_dim": 64}, {"auto": "Q4_0"}),
        ("llama", 128, Quantisation(group=48), {"tie_word_embeddings": False}, {"auto": "F16"}),
    ],
)  # fmt: skip
def test_the_same_greedy_tokens(
    tmp_path: Path,
    llama_python: str,
    kind: str,
    hidden: int,
    quantisation: Quantisation,
    options: dict[str, Any],
    ternary_types: dict[Any, str],
    write_ternary: Any,
) -> None:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden // 4,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    model = AutoModelForCausalLM.from_config(CONFIGS[kind](**{**sizes, **options}))
    quantised = Quantised(model, quantisation)
    teach(quantised, steps=350)
    checkpoint = write_ternary(quantised, tmp_path / "model", tokenizer())
    tokens_BT = sequences(SEQUENCES, LENGTH, torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected_BT = checkpoint.model()(input_ids=tokens_BT).logits.argmax(-1)
    right = (expected_BT[:, 1:-1] == tokens_BT[:, 2:]).float().mean().item()
    assert right > 0.8 and len(expected_BT.unique()) > 150, f"the model has not learnt: {right:.0%} right"
    for wanted, name in ternary_types.items():
        report = export_gguf(checkpoint, tmp_path / f"{wanted}.gguf", wanted)
        assert report.types["blk.0.attn_q.weight"] == report.types["blk.1.ffn_down.weight"] == name
        found_BT = torch.tensor(ask_llama(llama_python, report.path, tokens_BT.tolist())["argmax"])
        agreement = (found_BT == expected_BT).float().mean().item()
        assert found_BT.numel() == 1000 and agreement >= 0.95, f"{name}: {agreement:.1%}"


def test_a_compressed_agent_says_the_same_greedy_tokens(tmp_path: Path, llama_python: str, write_ternary: Any) -> None:
    """Ternary layers; one layer and the embedding by codebook. Codes cost the model a little, the file nothing."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True}
    quantised = Quantised(LlamaForCausalLM(LlamaConfig(**sizes, **heads, **ends)), Quantisation(group=128))
    teach(quantised, steps=350)
    source = write_ternary(quantised, tmp_path / "model", tokenizer())
    weights, names = source.tensors(), ternary_names(source.model())
    codecs: dict[str, Coding] = {name: Ternary(0.5, 128, 16) for name in names[1:]}
    codecs |= {names[0]: BOOK, "model.embed_tokens.weight": BOOK}
    shared = BOOK.encode_together({name: weights[name] for name in codecs if codecs[name] is BOOK})
    ternary = {name: codec.encode(weights[name]) for name, codec in codecs.items() if isinstance(codec, Ternary)}
    plain = {name: weight.half() for name, weight in weights.items() if name not in codecs}
    stored = Stored(codecs, ternary | dict(shared.matrices), {BOOK: shared.codebook_RKV}, plain)
    agent = write_artefact(source, stored, tmp_path / "agent", activations=False)
    tokens_BT = sequences(SEQUENCES, LENGTH, torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected_BT = agent.model()(input_ids=tokens_BT).logits.argmax(-1)
    right = (expected_BT[:, 1:-1] == tokens_BT[:, 2:]).float().mean().item()
    path = export_gguf(agent, tmp_path / "agent.gguf", "auto", gguf_parts(agent.path)).path
    found_BT = torch.tensor(ask_llama(llama_python, path, tokens_BT.tolist())["argmax"])
    agreement = (found_BT == expected_BT).float().mean().item()
    assert right > 0.5 and agreement >= 0.95, f"{agreement:.1%} of the tokens as ours, {right:.1%} right"


def strings(count: int) -> list[str]:
    """Texts of every kind, among them random mixtures that nobody would write."""
    known = [
        "",
        " ",
        "Hello, world!",
        "  two  spaces   and\ttabs\n\n\nlines\r\n ",
        "it's we're I'LL 'tis ''quoted'' don't",
        "3.14159 and 1,000,000 or ½ ² ٣٤ Ⅷ x2y3",
        "naïve café größer Straße ﬁ é",
        "日本語のテキスト 中文 한국어 ไทย العربية עברית हिन्दी",
        "🚀😶\u200d🌫️👩\u200d👩\u200d👧 ✅",
        "def f(x):\n    return x**2  # comment\n\n\treturn\n",
        "<|user|>What is 2+2?<|assistant|>4<|endoftext|>",
        "<|user|> <|unknown|> <|system|>\n<|assistant|>",
        "\u00a0nbsp\u2003em\u3000ideographic\u200bzero",
        "a" * 200,
    ]
    generator = random.Random(0)
    alphabet = "abc XYZ 0123456789 .,;'\"!?-_/\\ \n\t\r éßñ 日本 é \u00a0 ½Ⅷ٣ 🚀 '" + "the cat "
    mixtures = ["".join(generator.choices(alphabet, k=generator.randint(1, 40))) for _ in range(count - len(known))]
    return known + mixtures


def bytes_only() -> Any:
    """Words of GPT-2 over single bytes: no merges at all."""
    vocabulary = {"<|endoftext|>": 0} | {c: i + 1 for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


@pytest.mark.parametrize(
    ("kind", "make", "pre"),
    [("llama", tokenizer, "smollm"), ("llama", bytes_only, "gpt-2"), ("qwen2", tokenizer, "qwen2")],
)
def test_the_same_tokens_for_200_strings(
    tmp_path: Path, llama_python: str, kind: str, make: Any, pre: str, write_ternary: Any
) -> None:
    """Qwen2's are transformers' own splitting rules, which it puts on every tokenizer of a Qwen2 model."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0}
    model = AutoModelForCausalLM.from_config(CONFIGS[kind](**sizes, **heads))
    quantised = Quantised(model, Quantisation(group=32))
    checkpoint = write_ternary(quantised, tmp_path / "model", make())
    report, ours = export_gguf(checkpoint, tmp_path / "model.gguf"), checkpoint.tokenizer()
    texts = strings(200)
    expected = [ours.encode(text) for text in texts]
    found = ask_llama(llama_python, report.path, [e for e in expected if 0 < len(e) < 100], texts)
    assert len(texts) == 200
    different = [(t, a, b) for t, a, b in zip(texts, expected, found["tokens"], strict=True) if a != b]
    print(f"{pre}: {200 - len(different)} of 200 strings in the same tokens, {sum(map(len, expected)):,} tokens")
    assert not different, different[:3]
