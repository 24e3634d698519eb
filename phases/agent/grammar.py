"""Which text is a valid call, or the beginning of one.

    grammar = CallGrammar(form, tools)
    grammar.open_call('Let me see. <tool_call>{"name": "py')     # '{"name": "py'
    grammar.allows('{"name": "py')                               # whether a tool begins so

The language of all valid calls (tool names, arguments in the order of the schema, JSON of the right types) is a regular
expression (Willard & Louf, arXiv 2307.09702). Free text stays free.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import regex

from phases.agent.calls import CallFormat
from phases.agent.tool import Tool
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
