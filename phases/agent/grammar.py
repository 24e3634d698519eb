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
from collections.abc import Mapping, Sequence
from typing import Any

import regex
import torch

from phases.agent.calls import CallFormat
from phases.agent.tool import Tool
from phases.decoding import Choice
from phases.errors import ConfigError

# Without escapes of surrogates, of which halves are no text, and without numbers that are infinite as floats.
_ESCAPE = r'\\(?:["\\/bfnrt]|u(?:[0-9abcefABCEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))'
_STRING = rf'"(?:[^"\\\x00-\x1f]|{_ESCAPE})*"'
_INTEGER = r"-?(?:0|[1-9]\d{0,99})"
_TYPES = {
    "string": _STRING,
    "integer": _INTEGER,
    "number": rf"{_INTEGER}(?:\.\d{{1,99}})?(?:[eE][+-]?\d{{1,2}})?",
    "boolean": "(?:true|false)",
    "null": "null",
}
TRIED = 64
"""Likeliest tokens that are tried before all others are."""


def value_pattern(schema: Any, where: str) -> str:
    """Regular expression of a JSON value. Raises `ConfigError` for a schema that is not regular."""
    if not isinstance(schema, Mapping):
        raise ConfigError(f"{where}: a parameter's schema is no object; set constrained=false, or give its type")
    if "enum" in schema:
        return "(?:" + "|".join(regex.escape(json.dumps(value, ensure_ascii=False)) for value in schema["enum"]) + ")"
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _TYPES:
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
    parts = [
        (name in required, f"{regex.escape(json.dumps(name, ensure_ascii=False))}: {value_pattern(value, where)}")
        for name, value in properties.items()
    ]
    return r"\{" + _listed(parts, first=True) + r"\}"


def _listed(parts: Sequence[tuple[bool, str]], first: bool) -> str:
    """The parts with commas between those that are there."""
    if not parts:
        return ""
    needed, part = parts[0]
    rest = _listed(parts[1:], False)
    if not first:
        return f"(?:, {part}){'' if needed else '?'}{rest}"
    return f"{part}{rest}" if needed else f"(?:{part}{rest}|{_listed(parts[1:], True)})"


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
        self.foreign = {"é", *(sign for sign in self.pattern.pattern if ord(sign) > 127)}
        """Signs of several bytes: any one, and all that stand in the schemas."""

    def open_call(self, text: str) -> str | None:
        """What stands after the marker of a call that is not finished; None outside of calls."""
        place = text.find(self.marker)
        while place >= 0:
            start = place + len(self.marker)
            # A marker within a call is a part of its arguments, so calls are read one after the other.
            whole = self.pattern.match(text, start)
            if whole is None:
                return text[start:]
            place = text.find(self.marker, whole.end())
        return None

    def allows(self, tail: str) -> bool:
        """Whether what stands after a marker is the beginning of a valid call."""
        whole = tail.rstrip("\ufffd")
        if whole == tail:
            return bool(self.pattern.fullmatch(tail, partial=True))
        # Of a character only some bytes are there: one must be possible here, which one is judged when it is whole.
        return any(self.pattern.fullmatch(whole + sign, partial=True) for sign in self.foreign)


class NoCalls:
    """The grammar of text in which no call is begun."""

    def __init__(self, form: CallFormat) -> None:
        self.marker = form.marker

    def open_call(self, text: str) -> str | None:
        """What stands after a marker; None where there is none."""
        return text.partition(self.marker)[2] if self.marker in text else None

    def allows(self, tail: str) -> bool:
        """Nothing may stand after a marker, as none may be written."""
        return False


class Constrained:
    """A choice of tokens that keeps to a grammar inside calls."""

    def __init__(self, tokenizer: Any, grammar: CallGrammar | NoCalls, choose: Choice, prompts: int) -> None:
        self.tokenizer, self.grammar, self.choose = tokenizer, grammar, choose
        self.written: list[list[int]] = [[] for _ in range(prompts)]
        self.special = {int(i) for i in tokenizer.all_special_ids}
        """Ends of a turn and other tokens that are no text."""

    def __call__(self, logits_BV: torch.Tensor, index: Sequence[int]) -> torch.Tensor:
        """(B,) token ids."""
        chosen_B = self.choose(logits_BV, index)
        for row, prompt in enumerate(index):
            token = int(chosen_B[row])
            inside = self.grammar.open_call(self._text(prompt)) is not None
            if not self._fits(prompt, token, inside):
                token = self._best(logits_BV[row], prompt, inside)
                chosen_B[row] = token
            self.written[prompt].append(token)
        return chosen_B

    def _best(self, logits_V: torch.Tensor, prompt: int, inside: bool) -> int:
        """The likeliest token that fits; the likeliest of all when none does (a call cut off by its tokenizer)."""
        for count in (min(TRIED, len(logits_V)), len(logits_V)):
            for token in logits_V.topk(count).indices.tolist():
                if self._fits(prompt, token, inside):
                    return int(token)
        return int(logits_V.argmax())

    def _fits(self, prompt: int, token: int, inside: bool) -> bool:
        """Whether a token may come next; `inside`: a call is open before it."""
        if token in self.special:
            return not inside
        # A token may end the marker and go on, so those outside of calls are judged as well.
        tail = self.grammar.open_call(self._text(prompt, token))
        return tail is None or self.grammar.allows(tail)

    def _text(self, prompt: int, *more: int) -> str:
        return str(self.tokenizer.decode([*self.written[prompt], *more], skip_special_tokens=True))
