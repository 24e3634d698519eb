"""Decoding that writes no malformed call: after the marker of one only tokens that lead to a valid call are allowed.

    grammar = CallGrammar(form, tools)
    choose = Constrained(tokenizer, grammar, likeliest, prompts=64)
    decode(model, prompts, limits, stop, choose)

The language of all valid calls (tool names, arguments in the order of the schema, JSON of the right types) is a regular
expression, and a token is allowed when what is written so far and it are the beginning of a match (Willard & Louf,
arXiv 2307.09702, do this with precomputed tables; here tokens are tried from the likeliest on, and nearly always the
first one will do). Free text stays free.
"""

import json
from collections.abc import Sequence
from typing import Any

import regex
import torch

from phases.agent.calls import CallFormat
from phases.agent.tool import Tool
from phases.decoding import Choice
from phases.errors import ConfigError

_STRING = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"'
_TYPES = {
    "string": _STRING,
    "integer": r"-?(?:0|[1-9]\d*)",
    "number": r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?",
    "boolean": "(?:true|false)",
    "null": "null",
}
TRIED = 64
"""Likeliest tokens that are tried before all others are."""


def value_pattern(schema: Any, where: str) -> str:
    """Regular expression of a JSON value. Raises `ConfigError` for a schema that is not regular."""
    if "enum" in schema:
        return "(?:" + "|".join(regex.escape(json.dumps(value, ensure_ascii=False)) for value in schema["enum"]) + ")"
    kind = schema.get("type")
    if kind in _TYPES:
        return _TYPES[kind]
    if kind == "array" and "items" in schema:
        item = value_pattern(schema["items"], where)
        return rf"\[(?:{item}(?:, {item})*)?\]"
    if kind == "object" and "properties" in schema:
        return object_pattern(schema, where)
    raise ConfigError(
        f"{where}: a parameter of this kind cannot be constrained; set constrained=false, or give its type"
    )


def object_pattern(schema: Any, where: str) -> str:
    """Regular expression of a JSON object: properties in their order, those that are not required left out or not."""
    properties, required = schema.get("properties", {}), set(schema.get("required", ()))
    parts = [(name in required, f'"{name}": {value_pattern(value, where)}') for name, value in properties.items()]
    return r"\{" + _listed(parts, first=True) + r"\}"


def _listed(parts: Sequence[tuple[bool, str]], first: bool) -> str:
    """The parts with commas between those that are there."""
    if not parts:
        return ""
    needed, part = parts[0]
    here = f"{'' if first else ', '}{part}{_listed(parts[1:], False)}"
    return here if needed else f"(?:{here}|{_listed(parts[1:], first)})"


class CallGrammar:
    """All valid calls of some tools in one format."""

    def __init__(self, form: CallFormat, tools: Sequence[Tool]) -> None:
        """Raises `ConfigError` for a schema that cannot be constrained."""
        self.marker = form.marker
        tail = form.opening[form.opening.index(self.marker) + len(self.marker) :]
        calls = "|".join(
            f"{regex.escape(f'{tool.name}{form.middle}')}{object_pattern(tool.parameters, tool.name)}" for tool in tools
        )
        self.pattern = regex.compile(f"{regex.escape(tail)}(?:{calls}){regex.escape(form.closing)}")

    def open_call(self, text: str) -> str | None:
        """What stands after the marker of a call that is not finished; None outside of calls."""
        _, found, tail = text.rpartition(self.marker)
        return None if not found or self.pattern.match(tail) else tail

    def allows(self, tail: str) -> bool:
        """Whether what stands after a marker is the beginning of a valid call, or one with more text behind it."""
        return bool(self.pattern.fullmatch(tail, partial=True) or self.pattern.match(tail))


class Constrained:
    """A choice of tokens that keeps to a grammar inside calls."""

    def __init__(self, tokenizer: Any, grammar: CallGrammar, choose: Choice, prompts: int) -> None:
        self.tokenizer, self.grammar, self.choose = tokenizer, grammar, choose
        self.written: list[list[int]] = [[] for _ in range(prompts)]
        self.ends = {int(i) for i in (tokenizer.eos_token_id,) if i is not None}

    def __call__(self, logits_BV: torch.Tensor, index: Sequence[int]) -> torch.Tensor:
        """(B,) token ids."""
        chosen_B = self.choose(logits_BV, index)
        for row, prompt in enumerate(index):
            token = int(chosen_B[row])
            tail = self.grammar.open_call(self._text(prompt))
            if tail is not None and not self._fits(prompt, token):
                token = self._best(logits_BV[row], prompt)
                chosen_B[row] = token
            self.written[prompt].append(token)
        return chosen_B

    def _best(self, logits_V: torch.Tensor, prompt: int) -> int:
        """The likeliest token that fits; the likeliest of all when none does (a call cut off by its tokenizer)."""
        for count in (min(TRIED, len(logits_V)), len(logits_V)):
            for token in logits_V.topk(count).indices.tolist():
                if self._fits(prompt, token):
                    return int(token)
        return int(logits_V.argmax())

    def _fits(self, prompt: int, token: int) -> bool:
        if token in self.ends:
            return False
        text = self._text(prompt, token)
        tail = self.grammar.open_call(text)
        # A character of which only some bytes are there yet is judged when it is whole.
        return tail is None or self.grammar.allows(tail.rstrip("\ufffd"))

    def _text(self, prompt: int, *more: int) -> str:
        return str(self.tokenizer.decode([*self.written[prompt], *more], skip_special_tokens=True))
