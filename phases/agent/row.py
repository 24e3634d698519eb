"""A turn that is being played: of a conversation, or one of several samples of it.

row = Row(0, messages, lambda: context)
sample = row.copy(number=3, context=lambda: tentative(context), draw=0.7, first=())
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from phases.agent.calls import Message, Said
from phases.agent.conversation import CallRecord, Turn, Written
from phases.agent.prompting import joined
from phases.agent.tool import ToolContext


@dataclass
class Row:
    """What is said, what comes of it, and what is still to come."""

    number: int
    """Decides what is drawn for it."""
    messages: list[Message]
    """The conversation; the question, or the part of it that is asked now, comes last."""
    context: Callable[[], ToolContext]
    """What its tools work with, opened when it is first needed."""
    expert: str | None = None
    later: tuple[str, ...] = ()
    """Parts of the question that are still to be asked."""
    draw: float | None = None
    """Temperature, where the design has none."""
    first: tuple[int, ...] = ()
    """Token that its first message begins with."""
    tentative: bool = False
    """Nothing may come of it yet: nobody watches, and tools of the user's own are not called."""
    turn: Turn = field(default_factory=Turn)
    before: list[Turn] = field(default_factory=list)
    """In which earlier parts of the question were answered."""
    written: list[Written] = field(default_factory=list)
    waiting: tuple[Written, Said] | None = None
    """A text whose calls may not be made yet."""
    tries: int = 0
    """Calls that were taken back since the last one that went well."""
    shown: int = 0
    """Calls that the watcher has seen."""

    @property
    def question(self) -> str:
        """What is asked now."""
        return str(self.messages[-1]["content"])

    @property
    def calls(self) -> list[CallRecord]:
        """All calls so far."""
        return [call for turn in (*self.before, self.turn) for call in turn.calls]

    @property
    def logprobs(self) -> list[float]:
        """Of all tokens that were written."""
        return [value for text in self.written for value in text.logprobs]

    def result(self) -> Turn:
        """The whole turn."""
        return joined([*self.before, self.turn])

    def copy(
        self, number: int, context: Callable[[], ToolContext], draw: float | None, first: tuple[int, ...]
    ) -> "Row":
        """A sample of it, of which nothing comes unless it is chosen."""
        turn = Turn(list(self.turn.messages), list(self.turn.calls))
        made = replace(self, number=number, context=context, draw=draw, first=first, tentative=True, turn=turn)
        made.before, made.written = list(self.before), list(self.written)
        return made
