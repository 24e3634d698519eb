"""What is written must stand somewhere: arguments in the user's words, numbers of a reply in the results.

    rule = Copied(form, tools, ['look up "range"'], "strings")     # a query is a part of that, from word to word
    rule = Numbers(form, ["3*4"], ["12"])                          # a reply has no number but 3, 4 and 12
    Grounded(tokenizer, form, {0: rule})                           # a `Constraint` for the first prompt

Every token is tried before it is written, as in `phases.agent.constraint`: a beginning fits if it can become something
that is allowed. It is pointing without a pointer network (arXiv 1704.04368): the model says what, the user's text how.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import regex

from phases.agent.calls import CallFormat
from phases.agent.reading import Place
from phases.agent.tool import Tool

CODE = "code"
"""The argument that holds a program: it cannot be copied, only its numbers can."""
_BOUNDARY = regex.compile(r"(?w)\b")
_WORD = regex.compile(r"[^\W\d]\w*|\d\w*")
_DIGITS = regex.compile(r"\d+")


class Rule(Protocol):
    """What a text may hold."""

    def holds(self, place: Place) -> bool:
        """Whether what stands at a place may stand there, or become something that may; and what has just ended."""
        ...

    def ends(self, place: Place) -> bool:
        """Whether the text may end there."""
        ...


class Source:
    """A text that is copied from, by parts that begin and end between words."""

    def __init__(self, text: str) -> None:
        signs = [json.dumps(sign, ensure_ascii=False)[1:-1] for sign in text]
        self.raw = "".join(signs)
        """As it stands in JSON, where what is written is compared with it."""
        at = [0]
        for sign in signs:
            at.append(at[-1] + len(sign))
        between = {found.start() for found in _BOUNDARY.finditer(text)}
        blank = {place for place, sign in enumerate(text) if sign.isspace()}
        self.starts = [at[place] for place in sorted(between - blank - {len(text)})]
        self.ends = {at[place] for place in between if place and place - 1 not in blank}
        self.last = max(self.ends, default=-1)

    def begins(self, raw: str, more: bool = False) -> bool:
        """Whether a part begins so; `more`: and goes on with a sign of several bytes, of which only some are there."""
        found = (start + len(raw) for start in self._starts(raw))
        return any(end <= self.last and (not more or self.raw[end : end + 1] > "\x7f") for end in found)

    def whole(self, raw: str) -> bool:
        """Whether it is a part."""
        return bool(raw) and any(start + len(raw) in self.ends for start in self._starts(raw))

    def _starts(self, raw: str) -> list[int]:
        return [start for start in self.starts if self.raw.startswith(raw, start)] if raw in self.raw else []


def numbers(text: str) -> set[str]:
    """The runs of digits in a text."""
    return set(_DIGITS.findall(text))


class Known:
    """Numbers that may be written."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.runs = {run for text in texts for run in numbers(text)}

    def holds(self, raw: str, ended: bool) -> bool:
        """Whether every number in a text is known; unless it has ended, the last one may still grow.

        A digit in a name (`log2`) is no number: a word that begins with a letter is a name.
        """
        for word in _WORD.finditer(raw):
            if word[0][0].isdigit():
                for run in _DIGITS.finditer(word[0]):
                    grows = not ended and word.start() + run.end() == len(raw)
                    if run[0] not in self.runs and not (grows and any(one.startswith(run[0]) for one in self.runs)):
                        return False
        return True


class Copied:
    """Arguments stand in what the user said."""

    def __init__(
        self,
        form: CallFormat,
        tools: Sequence[Tool],
        said: Sequence[str],
        what: Literal["strings", "numbers", "all"],
    ) -> None:
        """`said`: the user's messages. Arguments that their schema lists (`enum`) are chosen, not copied."""
        self.what, self.sources, self.known = what, [Source(text) for text in said], Known(said)
        self.listed = {
            (tool.name, name)
            for tool in tools
            for name, schema in tool.parameters.get("properties", {}).items()
            if isinstance(schema, Mapping) and ("enum" in schema or "const" in schema)
        }

    def holds(self, place: Place) -> bool:
        """Whether the value that is open, and the one that has just been closed, are or may become copies."""
        if (place.tool, place.argument) in self.listed:
            return True
        if place.closed is not None and place.closed[0] != "text" and not self._value(*place.closed, place, True):
            return False
        return place.kind not in ("string", "bare") or self._value(place.kind, place.raw, place, False)

    def ends(self, place: Place) -> bool:
        """Ends of calls are the grammar's business."""
        return True

    def _value(self, kind: str, raw: str, place: Place, ended: bool) -> bool:
        as_numbers = self.what == "numbers" or (self.what == "all" and (kind == "bare" or place.argument == CODE))
        if as_numbers:
            return self.known.holds(raw, ended)
        if kind == "bare":
            return True
        if ended:
            return any(source.whole(raw) for source in self.sources)
        partial = raw.endswith("\ufffd")
        return any(source.begins(raw.rstrip("\ufffd"), partial) for source in self.sources)


class Numbers:
    """Numbers of a reply stand in what was said or found; those of calls are free."""

    def __init__(self, texts: Iterable[str]) -> None:
        """`texts`: what the user said, and the results."""
        self.known = Known(texts)

    def holds(self, place: Place) -> bool:
        """Whether the text so far has known numbers only, the last of which may still grow."""
        if place.closed is not None and place.closed[0] == "text" and not self.known.holds(place.closed[1], True):
            return False
        return place.kind != "text" or self.known.holds(place.raw, False)

    def ends(self, place: Place) -> bool:
        """Whether the last number is whole."""
        return place.kind != "text" or self.known.holds(place.raw, True)


class Silent:
    """No call begins: what is said does not even begin as one, and later on none is opened.

    A model that is only kept from the last sign of a call's marker goes on from the rest of it, and raves.
    """

    def __init__(self, form: CallFormat) -> None:
        self.marker = form.marker

    def holds(self, place: Place) -> bool:
        """Whether there is no call."""
        said = place.raw.lstrip()
        return place.kind == "text" and not (said and self.marker.startswith(said))

    def ends(self, place: Place) -> bool:
        """Anything may end."""
        return True


class Grounded:
    """A constraint made of rules, by prompt."""

    def __init__(self, tokenizer: Any, form: CallFormat, rules: Mapping[int, Sequence[Rule]]) -> None:
        """`rules`: those of each prompt that has any."""
        self.tokenizer, self.form, self.rules = tokenizer, form, rules
        self.special = {int(token) for token in tokenizer.all_special_ids}
        self._anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
        self._pieces: dict[int, str] = {}
        self._places: dict[int, dict[tuple[int, ...], Place]] = {}

    def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
        """Whether the rules of the prompt hold after the token."""
        rules = self.rules.get(prompt, ())
        if not rules:
            return True
        place = self._place(prompt, tuple(written))
        if token in self.special:
            return all(rule.ends(place) for rule in rules)
        piece = self._piece(token)
        if place.raw.endswith("\ufffd"):
            before = self._decoded(written).rstrip("\ufffd")
            piece = self._decoded([*written, token])[len(before) :]
            place = Place().after(before, self.form)
        if place.kind == "string" and not _ENDS.intersection(piece):
            # Nearly all trials are of this kind, so it is worth being quick.
            grown = replace(place, raw=place.raw + piece, closed=None)
            return all(rule.holds(grown) for rule in rules)
        for sign in piece:
            place = place.next(sign, self.form)
            if not all(rule.holds(place) for rule in rules):
                return False
        return True

    def _place(self, prompt: int, written: tuple[int, ...]) -> Place:
        """Where a text ends: the place before its last token is known nearly always."""
        places = self._places.setdefault(prompt, {(): Place()})
        if written not in places:
            before = places.get(written[:-1])
            piece = self._piece(written[-1])
            if before is None or "\ufffd" in piece or before.raw.endswith("\ufffd"):
                place = Place().after(self._decoded(written), self.form)
            else:
                place = before.after(piece, self.form)
            if len(places) > _KEPT:
                places.clear()
            places[written] = place
        return places[written]

    def _piece(self, token: int) -> str:
        """The text of a token within a text; U+FFFD where it has some bytes of a sign only."""
        if token not in self._pieces:
            alone = self._decoded(self._anchor)
            self._pieces[token] = self._decoded([*self._anchor, token])[len(alone) :]
        return self._pieces[token]

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))


_ENDS = frozenset('"\\')
"""Signs that may end a string, or make the next one not end it."""
_KEPT = 64
"""Texts of a prompt whose places are remembered."""
