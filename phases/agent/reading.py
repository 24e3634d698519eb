"""A text with calls in it, read sign by sign: where one is, and what stands there.

    place = Place().after('<tool_call>{"name": "python", "arguments": {"code": "3*', form)
    place.kind, place.tool, place.argument, place.raw        # ("string", "python", "code", "3*")

For those who judge arguments while they are being written (`phases.agent.grounding`), before any parser could.
"""

from dataclasses import dataclass, replace
from typing import Literal

from phases.agent.calls import CallFormat

Kind = Literal["text", "head", "json", "key", "string", "bare"]
"""Beside calls; between a call's marker and its arguments; between values; in a key; in a string; in a number, true,
false or null."""


@dataclass(frozen=True)
class Place:
    """Where a text ends."""

    kind: Kind = "text"
    raw: str = ""
    """What stands there so far: of a value its JSON without quotes, of text all since the last call."""
    closed: tuple[Literal["string", "bare", "text"], str] | None = None
    """The value or text that the last sign brought to its end."""
    tool: str = ""
    argument: str = ""
    """The argument, also within its lists and objects."""
    nesting: str = ""
    """Open brackets of the arguments, the outermost first."""
    key: str = ""
    """The last key of the innermost object."""

    def after(self, text: str, form: CallFormat) -> "Place":
        """The place at which one is after more text."""
        place = self
        for sign in text:
            place = place.next(sign, form)
        return place

    def next(self, sign: str, form: CallFormat) -> "Place":
        """The place after one more sign."""
        if self.kind == "text":
            return self._text(self.raw + sign, form)
        if self.kind == "head":
            return self._head(self.raw + sign, form)
        if self.kind in ("string", "key"):
            return self._quoted(sign)
        if self.kind == "bare" and sign not in ",]} \n":
            return replace(self, raw=self.raw + sign, closed=None)
        closed: tuple[Literal["bare"], str] | None = ("bare", self.raw) if self.kind == "bare" else None
        return replace(self, kind="json", raw="", closed=closed)._between(sign)

    def _text(self, raw: str, form: CallFormat) -> "Place":
        if raw.endswith(form.marker):
            return replace(self, kind="head", raw="", closed=("text", raw.removesuffix(form.marker)))
        return replace(self, raw=raw, closed=None)

    def _head(self, raw: str, form: CallFormat) -> "Place":
        if not raw.endswith(form.middle):
            return replace(self, raw=raw, closed=None)
        tail = form.opening[form.opening.index(form.marker) + len(form.marker) :]
        name = raw.removesuffix(form.middle).strip().removeprefix(tail.strip()).strip()
        return Place("json", tool=name)

    def _quoted(self, sign: str) -> "Place":
        escaped = (len(self.raw) - len(self.raw.rstrip("\\"))) % 2 == 1
        if sign != '"' or escaped:
            return replace(self, raw=self.raw + sign, closed=None)
        if self.kind == "key":
            argument = self.raw if len(self.nesting) == 1 else self.argument
            return replace(self, kind="json", raw="", closed=None, key=self.raw, argument=argument)
        return replace(self, kind="json", raw="", closed=("string", self.raw))

    def _between(self, sign: str) -> "Place":
        """After a sign that stands outside of values; `key` is empty where one is due."""
        if sign == '"':
            is_key = self.nesting.endswith("{") and not self.key
            return replace(self, kind="key" if is_key else "string", raw="")
        if sign in "{[":
            return replace(self, nesting=self.nesting + sign, key="")
        if sign in "}]":
            # What stands after the arguments is text again: what closes the call, and what is said then.
            inner = self.nesting[:-1]
            return replace(self, kind="json" if inner else "text", nesting=inner, key="")
        if sign == ",":
            return replace(self, key="")
        return self if sign in ": \n\t" else replace(self, kind="bare", raw=sign)
