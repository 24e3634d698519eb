"""The tokenizer in the file: tokens, their types, llama.cpp's names of splitting rules; others are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from phases.data.tokenizer import CHAT_TEMPLATE, train_tokenizer
from phases.errors import CheckpointError
from phases.packed.gguf_export import GgufReport
from phases.packed.gguf_tokenizer import pre_tokenizer

VOCABULARY = 300
Export = Callable[..., GgufReport]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """As the data phase makes one: 270 tokens, four of them special."""
    return train_tokenizer(["the cat sat on the mat, and then the other cat sat there too. " * 3], 270)


@pytest.fixture
def fields(make_model: Any, exported: Export, tokenizer: Any) -> dict[str, Any]:
    """The metadata of an export, by gguf's own reader."""
    path = exported(make_model("llama", 64, vocab_size=VOCABULARY), tokenizer=tokenizer).path
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_tokenizer_metadata(fields: dict[str, Any]) -> None:
    expected = {
        "llama.vocab_size": VOCABULARY,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
    assert {key: fields[key] for key in expected} == expected


def test_tokens_and_their_types(fields: dict[str, Any], tokenizer: Any) -> None:
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    known = tokenizer.get_vocab()
    assert len(tokens) == len(types) == VOCABULARY
    assert all(tokens[i] == text for text, i in known.items())
    assert types[:4] == [gguf.TokenType.CONTROL] * 4
    assert set(types[4 : len(known)]) == {gguf.TokenType.NORMAL}
    assert set(types[len(known) :]) == {gguf.TokenType.UNUSED}


def byte_level(rules: Any, **options: Any) -> dict[str, Any]:
    """`tokenizer.json` of a byte-level BPE with these splitting rules."""
    core = Tokenizer(models.BPE(vocab={"a": 0}, merges=[], **options))
    core.pre_tokenizer, core.decoder = rules, decoders.ByteLevel()
    content: dict[str, Any] = json.loads(core.to_str())
    return content


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


def split(pattern: str) -> Any:
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), whole])


def test_splitting_rules_have_llama_cpp_s_names() -> None:
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    assert pre_tokenizer(byte_level(words), "here") == "gpt-2"
    assert pre_tokenizer(byte_level(pre_tokenizers.Sequence([digits, words])), "here") == "smollm"
    assert pre_tokenizer(byte_level(split(LLAMA_3), ignore_merges=True), "here") == "llama-bpe"
    assert pre_tokenizer(byte_level(split(LLAMA_3.replace("{1,3}", ""))), "here") == "qwen2"


@pytest.mark.parametrize(
    ("rules", "options", "message"),
    [
        (pre_tokenizers.Whitespace(), {}, "pre-tokenizer that llama.cpp has no name for"),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), {}, "has no name for"),
        (split(r"\w+"), {}, "has no name for"),
        (split(LLAMA_3), {}, "ignore_merges=False with the splitting rules of llama-bpe"),
        (pre_tokenizers.ByteLevel(add_prefix_space=False), {"dropout": 0.1}, "BPE with dropout"),
    ],
)
def test_tokenizers_that_llama_cpp_would_split_otherwise_are_refused(
    rules: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        pre_tokenizer(byte_level(rules, **options), "here")


def test_normalisation(caplog: pytest.LogCaptureFixture) -> None:
    core = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    assert pre_tokenizer(core | {"normalizer": {"type": "NFC"}}, "here") == "gpt-2"
    assert "decomposed accents" in caplog.text
    with pytest.raises(CheckpointError, match="normalizer of type Lowercase"):
        pre_tokenizer(core | {"normalizer": {"type": "Lowercase"}}, "here")


def test_a_tokenizer_that_is_not_bpe_or_not_the_model_s_is_refused(
    make_model: Any, exported: Export, tokenizer: Any, tmp_path: Path
) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    other = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="a")
    with pytest.raises(CheckpointError, match=r"\(model WordLevel\), which is not byte-level BPE"):
        exported(make_model("llama"), tokenizer=other)
    with pytest.raises(CheckpointError, match="the tokenizer has token 269 and the model only 200 rows"):
        exported(make_model("llama", vocab_size=200), tokenizer=tokenizer)
    assert not (tmp_path / "model.gguf").exists()
