"""A turn of a conversation: the model writes, its calls run, their results go back to it, until it has said its piece.

    replies = take_turns(writer, conversations, toolbox, TurnLimits())

Many conversations go on at once, so that evaluation and sampling share batches; a chat is a list of one. Nothing that a
model or a tool does ends the conversation: a malformed call, an unknown tool, a failure, a loop of calls or a flood of
output becomes a result that the model reads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from pydantic import Field

from phases.agent.calls import Call, CallFormat, Message, Said, check_call
from phases.agent.tool import Tool, ToolContext, ToolError
from phases.strict import StrictModel

Verdict = Literal["done", "failed", "malformed", "invalid", "repeated"]
"""What became of a call: it ran; the tool failed; it could not be read; its tool or arguments do not exist; the same
call as one before it in this turn."""


class TurnLimits(StrictModel):
    """What a turn may cost."""

    calls: int = Field(4, ge=0)
    """Calls of tools before the turn is ended."""
    new_tokens: int = Field(96, ge=1)
    """Tokens that the model may write at a time."""
    result_chars: int = Field(240, ge=16)
    """Characters of a result that the model gets to read; the rest is cut, and that is said."""


@dataclass(frozen=True)
class CallRecord:
    """One call of a turn and what came of it."""

    verdict: Verdict
    name: str
    arguments: Mapping[str, object]
    result: str
    """What the model read."""


@dataclass
class Turn:
    """What a turn added to a conversation."""

    messages: list[Message] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)
    ended: Literal["said", "too many calls", "cut off"] = "said"

    @property
    def text(self) -> str:
        """The last thing that the assistant said."""
        return str(self.messages[-1]["content"]) if self.messages else ""


@dataclass(frozen=True)
class Written:
    """What the model wrote."""

    text: str
    whole: bool
    """Whether it came to an end by itself."""
    logprobs: tuple[float, ...] = field(default=(), compare=False)
    """Of each token, where it was measured; never compared, since rounding depends on who shares a batch."""


class Writer(Protocol):
    """Writes the assistant's next message of several conversations."""

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[Written]: ...


Contexts = ToolContext | Callable[[int], ToolContext]
"""What tools work with: one for all conversations, or one for each, by its index."""


@dataclass(frozen=True)
class Toolbox:
    """The tools of an agent, the format of its calls, and what the tools work with."""

    form: CallFormat
    tools: tuple[Tool, ...]
    context: Contexts

    def of(self, index: int) -> ToolContext:
        """The context of a conversation."""
        return self.context if isinstance(self.context, ToolContext) else self.context(index)


TakeTurns = Callable[[Sequence[Sequence[Message]], Contexts], list[Turn]]
"""The assistant's turn in each conversation: what a `BatchWriter` does without more ado, and an `Acting` by design."""
Run = Callable[[Call, Sequence[CallRecord]], CallRecord]
"""Does a call, after others of the same turn."""
Watch = Callable[[CallRecord], None]


def nobody(_: CallRecord) -> None:
    """The default watcher of calls."""


def take_turns(
    write: Writer,
    conversations: Sequence[Sequence[Message]],
    toolbox: Toolbox,
    limits: TurnLimits,
    watch: Watch = nobody,
) -> list[Turn]:
    """The assistant's turn in each conversation, whose last message is the user's."""
    turns = [Turn() for _ in conversations]
    going = list(range(len(conversations)))
    while going:
        written = write([[*conversations[i], *turns[i].messages] for i in going])
        going = [i for i, one in zip(going, written, strict=True) if _goes_on(turns[i], one, toolbox, i, limits, watch)]
    return turns


def _goes_on(turn: Turn, written: Written, toolbox: Toolbox, index: int, limits: TurnLimits, watch: Watch) -> bool:
    """Add what was written, run its calls; whether the model has to go on."""

    def run(call: Call, before: Sequence[CallRecord]) -> CallRecord:
        return run_call(call, toolbox.tools, toolbox.of(index), before, limits)

    records = advance(turn, written, toolbox.form.parse(written.text), run, limits)
    for record in records:
        watch(record)
    return bool(records)


def advance(turn: Turn, written: Written, said: Said, run: Run, limits: TurnLimits) -> list[CallRecord]:
    """Add what was written and its calls' results to a turn: the calls' records. Without any the turn is at its end."""
    if not said.calls and not said.problem:
        turn.messages.append(said.message())
        turn.ended = "said" if written.whole else "cut off"
        return []
    if len(turn.calls) >= limits.calls:
        turn.messages.append({"role": "assistant", "content": f"(stopped after {len(turn.calls)} calls)"})
        turn.ended = "too many calls"
        return []
    # A text of many calls runs no more of them than are left, and is remembered as having those.
    said = replace(said, calls=said.calls[: limits.calls - len(turn.calls)])
    # What could not be read stays as it was written: the model should see its own mistake.
    turn.messages.append({"role": "assistant", "content": written.text} if said.problem else said.message())
    records: list[CallRecord] = []
    if said.problem:
        records.append(CallRecord("malformed", "", {}, shorten(f"error: {said.problem}", limits.result_chars)))
    for call in () if said.problem else said.calls:
        records.append(run(call, [*turn.calls, *records]))
    turn.messages += [{"role": "tool", "name": record.name, "content": record.result} for record in records]
    turn.calls += records
    return records


def run_call(
    call: Call, tools: Sequence[Tool], context: ToolContext, before: Sequence[CallRecord], limits: TurnLimits
) -> CallRecord:
    """Check and do one call; whatever goes wrong is its result."""
    problem = check_call(call, tools)
    if problem:
        return CallRecord("invalid", call.name, call.arguments, shorten(f"error: {problem}", limits.result_chars))
    if any(one.name == call.name and one.arguments == call.arguments for one in before):
        return CallRecord("repeated", call.name, call.arguments, "error: that call was made already; answer now")
    tool = next(tool for tool in tools if tool.name == call.name)
    try:
        result = tool.run(call.arguments, context)
    except ToolError as error:
        return CallRecord("failed", call.name, call.arguments, shorten(f"error: {error}", limits.result_chars))
    except Exception as error:  # somebody's own tool: the conversation goes on
        text = f"error: {type(error).__name__}: {error}"
        return CallRecord("failed", call.name, call.arguments, shorten(text, limits.result_chars))
    return CallRecord("done", call.name, call.arguments, shorten(str(result), limits.result_chars))


def shorten(text: str, characters: int) -> str:
    """The text on one line, its rest cut at a word and said to be."""
    # Half a surrogate pair is no text that could be encoded.
    flat = " ".join(text.encode("utf-8", "replace").decode().split())
    if len(flat) <= characters:
        return flat
    kept = flat[:characters].rsplit(" ", 1)[0] if " " in flat[:characters] else flat[:characters]
    return f"{kept} … ({len(flat) - len(kept):,} characters more)"
