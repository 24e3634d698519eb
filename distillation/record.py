"""`Record`: one question with what was, or is to be, answered: the unit of a distillation data set.

Read from files (`distillation.records`), captured from teachers (`distillation.teachers`), chosen by
`distillation.curation`, turned into training rows by `distillation.training`. Many may be in memory at the same time,
so these are plain objects with slots; whoever reads them from outside validates.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
GIVEN = "\0given"
"""In `Record.more`, and no name of a column: the answer that a question came with, while a teacher is asked."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Record:
    """A question, and its answer as far as there is one."""

    messages: tuple[Message, ...]
    """What is asked; the last is the user's."""
    completion: str = ""
    """What is to be written; empty: a teacher has to be asked."""
    rationale: str = ""
    """Worked steps before the answer, for reasoning transfer."""
    reference: str = ""
    """The right answer where it is known: it grades completions, and is never trained on by itself."""
    group: str = "all"
    """Task or domain: what is balanced, and judged apart."""
    source: str = ""
    """Where it came from: `file.jsonl:12`, `capture`, `synthetic`."""
    teacher: str = ""
    """Who wrote the completion; empty: it came with the data."""
    licence: str = "own"
    """Of the data it came from."""
    edge: bool = False
    """Marked as an edge case by whoever gave it."""
    weight: float = 1.0
    """Its say in the loss."""
    more: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Columns that nothing here reads, and `GIVEN`."""

    @property
    def prompt(self) -> str:
        """The last user's turn: what texts are compared by."""
        return self.messages[-1].content

    @property
    def prompt_key(self) -> str:
        """Content hash of the question: equal questions have equal keys."""
        return _digest([[m.role, m.content] for m in self.messages])

    @property
    def key(self) -> str:
        """Content hash of question and answer; where it came from does not count."""
        asked = [[m.role, m.content] for m in self.messages]
        return _digest([asked, self.completion, self.rationale, self.reference, self.group])

    def as_json(self) -> dict[str, Any]:
        """As a line of a data set has it; defaults are left out."""
        empty = Record(self.messages)
        return {k: v for k, v in asdict(self).items() if k == "messages" or v != getattr(empty, k)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Record":
        """The inverse of `as_json`, for files that were written by it."""
        messages = tuple(Message(m["role"], m["content"]) for m in values["messages"])
        return cls(messages, **{k: v for k, v in values.items() if k != "messages"})


def asked(prompt: str, **rest: Any) -> Record:
    """A record of one user's turn."""
    return Record((Message("user", prompt),), **rest)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()
