"""How a model writes a tool call: read off its own chat template, parsed, checked against the tool's schema.

    form = CallFormat.of(tokenizer)              # e.g. <tool_call>{"name": "NAME", "arguments": {…}}</tool_call>
    said = form.parse(text)                      # Said("", (Call("python", {"code": "3*4"}),))

The format is whatever the template makes of an assistant message with `tool_calls` (OpenAI's function calling), so
servers that render and parse with the same template understand it. A template that knows no tools gets ours
(`phases.agent.template`).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema
from referencing import Registry

from phases.agent.tool import Tool
from phases.errors import CheckpointError

Message = dict[str, Any]
"""One message of OpenAI's chat format."""
_NAME, _KEY = "probe_of_the_forge", "key"
DEEPEST = 32
"""Lists and objects within one another that a call's arguments may have."""


@dataclass(frozen=True)
class Call:
    """One call, parsed and not yet checked."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """What an assistant's text holds."""

    content: str
    """What is said beside the calls."""
    calls: tuple[Call, ...] = ()
    problem: str = ""
    """Why a call in the text cannot be read; empty when there is none, or all can."""

    def message(self) -> Message:
        """The assistant's message as the template takes it."""
        made: Message = {"role": "assistant", "content": self.content}
        if self.calls:
            functions = [{"name": call.name, "arguments": dict(call.arguments)} for call in self.calls]
            made["tool_calls"] = [{"type": "function", "function": function} for function in functions]
        return made


@dataclass(frozen=True)
class CallFormat:
    """A call is `opening` NAME `middle` JSON `closing`."""

    opening: str
    middle: str
    closing: str

    @classmethod
    def of(cls, tokenizer: Any) -> "CallFormat":
        """The format of a tokenizer's chat template. Raises `CheckpointError` when the template knows no calls."""
        call = {"type": "function", "function": {"name": _NAME, "arguments": {_KEY: "value"}}}
        asked = {"role": "user", "content": "x"}
        said = {"role": "assistant", "content": "", "tool_calls": [call]}
        written = str(tokenizer.apply_chat_template([asked, said], tokenize=False)) if tokenizer.chat_template else ""
        before = (
            str(tokenizer.apply_chat_template([asked], tokenize=False, add_generation_prompt=True)) if written else ""
        )
        arguments = re.search(r'\{\s*"' + _KEY + r'":\s*"value"\s*\}', written)
        if _NAME not in written or arguments is None or not written.startswith(before):
            raise CheckpointError("the chat template renders no tool calls; give a tokenizer whose template does")
        written, place = written[len(before) :], len(before)
        start = written.index(_NAME)
        closing = written[arguments.end() - place :].removesuffix(_ending(tokenizer, before))
        return cls(written[:start].lstrip(), written[start + len(_NAME) : arguments.start() - place], closing.rstrip())

    @property
    def marker(self) -> str:
        """What shows that a call was meant: the part of the opening before its JSON, or all of it."""
        return self.opening.split("{")[0].strip() or self.opening

    def render(self, call: Call) -> str:
        """The call as the template writes it."""
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
        return f"{self.opening}{call.name}{self.middle}{arguments}{self.closing}"

    def parse(self, text: str) -> Said:
        """What the assistant said. A call that cannot be read makes a `problem`, in words that the model can use."""
        if self.marker not in text:
            return Said(text.strip())
        calls: list[Call] = []
        content, rest = "", text
        while self.marker in rest:
            lead, _, rest = rest.partition(self.marker)
            content += lead
            found = self._one(rest)
            if isinstance(found, str):
                return Said(text.strip(), tuple(calls), found)
            call, rest = found
            calls.append(call)
        return Said((content + rest).strip(), tuple(calls))

    def _one(self, text: str) -> tuple[Call, str] | str:
        """The call whose marker stood before `text`, and what follows it; or what is wrong."""
        head = self.opening[self.opening.index(self.marker) + len(self.marker) :]
        flexible = r"\s*".join(re.escape(part) for part in head.split())
        middle = r"\s*".join(re.escape(part) for part in self.middle.split())
        start = re.match(rf"\s*{flexible}\s*([A-Za-z0-9_.-]+?)\s*{middle}\s*(?=\{{)", text)
        if start is None:
            return f"this is no call; write {self.opening}NAME{self.middle}{{…}}{self.closing}"
        try:
            arguments, end = json.JSONDecoder().raw_decode(text[start.end() :])
            # What Python reads and others do not: NaN, 1e999, half a surrogate pair.
            json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError):
            return f"the arguments of {start[1]} are not JSON"
        if _deeper(arguments, DEEPEST):
            return f"the arguments of {start[1]} are nested too deeply"
        rest = text[start.end() + end :].lstrip()
        closing = self.closing.strip()
        if not rest.startswith(closing):
            return f"the call of {start[1]} is not closed with {closing}"
        return Call(start[1], arguments), rest[len(closing) :]


def check_call(call: Call, tools: Sequence[Tool]) -> str:
    """What is wrong with a call, in one line for the model; empty when it can be done."""
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        return f"there is no tool {call.name}; there are: {', '.join(tool.name for tool in tools) or 'none'}"
    # An empty registry: the default one would fetch a `$ref` from the network.
    validator = jsonschema.Draft202012Validator(_closed(tool.parameters), registry=Registry())
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(call.arguments))
    except Exception as wrong:  # a `$ref` that leads nowhere, a pattern that is no regular expression
        return f"{call.name}: its schema cannot be used ({type(wrong).__name__})"
    return "" if error is None else f"{call.name}: {error.message[:200]}"


def _deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects lie within one another deeper than so many levels."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(one, levels - 1) for one in inner)


def _closed(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema that refuses arguments that it does not name, unless it says otherwise."""
    return {"additionalProperties": False, "type": "object", **parameters}


def _ending(tokenizer: Any, before: str) -> str:
    """What the template puts after an assistant's turn."""
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _NAME}]
    return str(tokenizer.apply_chat_template(said, tokenize=False))[len(before) :].partition(_NAME)[2]
