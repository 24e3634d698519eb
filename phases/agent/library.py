"""`library.json`: solved conversations that an agent carries along, as examples and to learn from what is asked.

    library = read_library(checkpoint.path)                       # EMPTY where there is none
    Nearest(library).to("what is my boat called?", 2)             # the two solved conversations most like the question

They are training conversations; none that an agent is judged on belongs here. What is like a question is found by BM25
(Robertson & Zaragoza 2009) over words as far as they say what kind of question it is: a number is a number, and what is
quoted is a quotation.
"""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phases.errors import CheckpointError
from phases.strict import StrictModel

LIBRARY = "library.json"
_SAID = re.compile(
    r'(?P<quoted>"[^"]*"|“[^”]*”|„[^“”]*[“”]|«[^»]*»)|(?P<number>\d+)|(?P<word>[^\W\d_]+)|(?P<sign>[?+*/=%<>#:\-])'
)
_SATURATION, _BY_LENGTH = 1.2, 0.75
"""BM25's k₁ and b."""


class Example(StrictModel):
    """A solved conversation."""

    domain: str
    """Which expert it is for, e.g. `python`."""
    messages: tuple[dict[str, Any], ...]
    """In OpenAI's chat format, calls and results among them; the last one is the assistant's."""

    def turns(self) -> Iterator[tuple[str, str]]:
        """(what the user says, the tool that is called first, or "" where none is) of each turn."""
        for place, message in enumerate(self.messages):
            if message["role"] == "user":
                answer: Mapping[str, Any] = self.messages[place + 1] if place + 1 < len(self.messages) else {}
                calls = answer.get("tool_calls") or [{"function": {"name": ""}}]
                yield str(message["content"]), str(calls[0]["function"]["name"])

    @property
    def questions(self) -> list[str]:
        """What its domain shows in: the turns in which a tool is due, or all where none is.

        Small talk between a fact and its question is small talk.
        """
        asked = list(self.turns())
        return [text for text, tool in asked if tool] or [text for text, _ in asked]


class Library(StrictModel):
    """`library.json`."""

    examples: tuple[Example, ...] = ()

    @property
    def domains(self) -> list[str]:
        """Sorted by name."""
        return sorted({example.domain for example in self.examples})


EMPTY = Library()


def read_library(path: Path) -> Library:
    """That of a checkpoint, `EMPTY` where it has none. Raises `CheckpointError` for one that is damaged."""
    file = path / LIBRARY
    try:
        return Library.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return EMPTY
    except (OSError, ValueError, ValidationError):
        raise CheckpointError(f"{file}: truncated or altered; restore it from a copy or run the phase again") from None


def features(text: str) -> list[str]:
    """What says of which kind a question is: its words, signs such as `?`, `0` for each number, `"` for a quotation."""
    kinds = {"quoted": '"', "number": "0"}
    found = _SAID.finditer(unicodedata.normalize("NFC", text))
    return [kinds.get(str(one.lastgroup), one[0].casefold()) for one in found]


def in_turn(library: Library, count: int) -> list[Example]:
    """The first `count` examples, a domain after the other, so that few examples show several."""
    shelves = [[one for one in library.examples if one.domain == domain] for domain in library.domains]
    most = max(map(len, shelves), default=0)
    return [shelf[place] for place in range(most) for shelf in shelves if place < len(shelf)][:count]


class Nearest:
    """The examples of a library, by how much they are like a question."""

    def __init__(self, library: Library) -> None:
        self.examples = library.examples
        self.counts = [Counter(f for text in one.questions for f in features(text)) for one in self.examples]
        holders = Counter(feature for count in self.counts for feature in count)
        total = len(self.examples)
        self.rarity = {f: math.log(1 + (total - held + 0.5) / (held + 0.5)) for f, held in holders.items()}
        self.mean_length = sum(count.total() for count in self.counts) / max(1, total)

    def scores(self, question: str) -> list[float]:
        """BM25 of every example."""
        asked = set(features(question))
        return [self._score(asked, count) for count in self.counts]

    def _score(self, asked: set[str], count: Mapping[str, int]) -> float:
        length = sum(count.values()) / max(self.mean_length, 1e-9)
        damped = _SATURATION * (1 - _BY_LENGTH + _BY_LENGTH * length)
        found = sorted(asked.intersection(count))
        return sum(self.rarity[f] * count[f] * (_SATURATION + 1) / (count[f] + damped) for f in found)

    def places(self, question: str, count: int) -> Sequence[int]:
        """Numbers of the `count` most similar, the most similar first; of equals the first."""
        scores = self.scores(question)
        return sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:count]

    def to(self, question: str, count: int) -> list[Example]:
        """The `count` most similar, the most similar first."""
        return [self.examples[place] for place in self.places(question, count)]
