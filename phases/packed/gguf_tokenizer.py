"""A byte-level BPE tokenizer as GGUF metadata, under the name that llama.cpp knows its splitting rules by.

llama.cpp has no general pre-tokeniser: `tokenizer.ggml.pre` is one of a fixed list of names. The rules are compared
with those of the list, not guessed from the model's name; what is not there is refused, since a wrong split gives
other tokens without any error. Ours (`phases.data.tokenizer`: digits one by one, then GPT-2's words) is "smollm".
"""

import json
import logging
from typing import Any

from gguf import GGUFWriter, TokenType

from phases.errors import CheckpointError

log = logging.getLogger(__name__)

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS: dict[tuple[tuple[str, ...], ...], str] = {
    (("bytes", "words"),): "gpt-2",
    (("digits",), ("bytes", "words")): "smollm",
    (("split", _CONTRACTIONS + r"\p{N}" + _REST), ("bytes", "whole")): "qwen2",
    (("split", _CONTRACTIONS + r"\p{N}{1,3}" + _REST), ("bytes", "whole")): "llama-bpe",
}
_IGNORE_MERGES = {"llama-bpe"}
"""Where llama.cpp takes a word that is in the vocabulary without asking the merges."""
_NO_MERGE = "<|no|> <|merge|>"
"""Stands in an empty list of merges, which the format cannot hold: symbols of several characters come from merges."""


def write_tokenizer(writer: GGUFWriter, tokenizer: Any, vocabulary: int, where: str) -> None:
    """Add tokens, merges, special tokens and the chat template for a model of `vocabulary` rows.

    Raises `CheckpointError` that starts with `where` when llama.cpp cannot tokenise alike.
    """
    core = json.loads(_backend(tokenizer, where).to_str())
    tokens, types = _tokens(tokenizer, core, vocabulary, where)
    merges = [m if isinstance(m, str) else " ".join(m) for m in core["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(core, where))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges or [_NO_MERGE])
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token is not None:
            add(token)
    before, after = _framing(tokenizer, where)
    writer.add_add_bos_token(before)
    writer.add_add_eos_token(after)
    template = tokenizer.chat_template
    template = template.get("default") if isinstance(template, dict) else template
    if template:
        writer.add_chat_template(template)


def pre_tokenizer(core: dict[str, Any], where: str) -> str:
    """llama.cpp's name for the splitting rules of a `tokenizer.json`. Raises `CheckpointError` when it has none."""
    model, normalizer = core["model"], core.get("normalizer")
    if normalizer is not None and normalizer["type"] != "NFC":
        raise _refuse(where, f"a normalizer of type {normalizer['type']}")
    if normalizer is not None:
        log.warning(
            "%s: llama.cpp does not normalise text to NFC, this tokenizer does: decomposed accents differ", where
        )
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise _refuse(where, f"BPE with {option}")
    steps = _steps(core["pre_tokenizer"])
    name = _SPLITS.get(steps)
    if name is None:
        raise _refuse(where, f"a pre-tokenizer that llama.cpp has no name for ({steps})")
    if bool(model.get("ignore_merges")) != (name in _IGNORE_MERGES):
        raise _refuse(where, f"ignore_merges={bool(model.get('ignore_merges'))} with the splitting rules of {name}")
    return name


def _backend(tokenizer: Any, where: str) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    core = json.loads(backend.to_str()) if backend is not None else {"model": {"type": "none"}}
    kind = core["model"]["type"]
    if kind != "BPE" or (core.get("decoder") or {}).get("type") != "ByteLevel":
        raise _refuse(where, f"{type(tokenizer).__name__} (model {kind}), which is not byte-level BPE")
    return backend


def _refuse(where: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{where}: the tokenizer has {what}; llama.cpp would tokenise differently: export a model with a byte-level "
        "BPE tokenizer of GPT-2, SmolLM, Llama 3 or Qwen style, such as the forge trains"
    )


def _steps(rules: dict[str, Any] | None) -> tuple[tuple[str, ...], ...]:
    """Splitting rules as comparable tuples, a sequence flattened."""
    if rules is None:
        return ()
    if rules["type"] == "Sequence":
        return tuple(step for part in rules["pretokenizers"] for step in _steps(part))
    if rules["type"] == "Digits" and rules["individual_digits"]:
        return (("digits",),)
    if rules["type"] == "ByteLevel" and not rules["add_prefix_space"]:
        return (("bytes", "words" if rules.get("use_regex", True) else "whole"),)
    if rules["type"] == "Split" and rules["behavior"] == "Isolated" and not rules["invert"]:
        return (("split", str(rules["pattern"].get("Regex"))),)
    return ((json.dumps(rules),),)


def _tokens(tokenizer: Any, core: dict[str, Any], vocabulary: int, where: str) -> tuple[list[str], list[int]]:
    """Text and type of every row of the embedding; rows that no token has are unused."""
    tokens = [f"[PAD{i}]" for i in range(vocabulary)]
    types = [int(TokenType.UNUSED)] * vocabulary
    known = tokenizer.get_vocab()
    if max(known.values()) >= vocabulary:
        raise CheckpointError(
            f"{where}: the tokenizer has token {max(known.values()):,} and the model only {vocabulary:,} rows of "
            "embedding; give the tokenizer that belongs to the model"
        )
    for text, i in known.items():
        tokens[i], types[i] = text, int(TokenType.NORMAL)
    for added in core["added_tokens"]:
        types[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            log.warning("%s: llama.cpp ignores lstrip, rstrip and single_word of token %s", where, added["content"])
    return tokens, types


def _framing(tokenizer: Any, where: str) -> tuple[bool, bool]:
    """Whether the tokenizer puts bos before and eos behind a text."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    framed = tokenizer.encode("a")
    for before in (False, True):
        for after in (False, True):
            head = [tokenizer.bos_token_id] if before else []
            if framed == head + plain + ([tokenizer.eos_token_id] if after else []):
                return before, after
    raise _refuse(where, "a template around every text other than bos … eos")
