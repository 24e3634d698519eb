"""A scenario: what a user says turn by turn, which calls are due, and what has to stand in the answers.

Scenarios are made by generators with verifiable answers (`questions`, `facts`, small talk) or come from the user's own
traces. `play` does their calls with the real tools: what fails, or does not lead to the answer, is no training data.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from phases.agent.calls import Call, Message, Said
from phases.agent.conversation import CallRecord, Turn, TurnLimits, run_call
from phases.agent.tool import Tool, ToolContext
from phases.strict import StrictModel

Kind = Literal["python", "retrieve", "search", "memory", "persona", "own"]
TOOL_KINDS: tuple[Kind, ...] = ("python", "retrieve", "search", "memory")
"""Kinds in which tools are due."""


class GoldCall(StrictModel):
    """A call that is due."""

    name: str
    arguments: dict[str, Any]


class ScriptedTurn(StrictModel):
    """What the user says, and what should come of it."""

    user: str
    calls: tuple[GoldCall, ...] = ()
    reply: str = ""
    """What the assistant should say at the end."""
    answer: str = ""
    """What must stand in its reply, as whole words; empty where anything may be said."""


class Scenario(StrictModel):
    """One conversation."""

    kind: Kind
    task: str
    """What it was made by, e.g. `products`."""
    turns: tuple[ScriptedTurn, ...]
    known: tuple[str, ...] = ()
    """Facts that were told in an earlier session."""
    traits: dict[str, float] = Field({})
    """Persona: the strengths that its replies were made with."""

    @property
    def key(self) -> str:
        """Content hash of what the user says and has said, and of the persona that answers."""
        said = [*self.known, *(turn.user for turn in self.turns)]
        said += [f"{name}={strength}" for name, strength in self.traits.items()]
        return hashlib.sha256("\0".join(said).encode()).hexdigest()


@dataclass(frozen=True)
class Played:
    """A scenario with its calls done, or why it is no training data."""

    messages: tuple[Message, ...]
    rejected: str = ""


def holds(reply: str, answer: str) -> bool:
    """Whether the answer stands in the reply as whole words, white space folded."""
    said, wanted = " ".join(reply.split()), " ".join(answer.split())
    return bool(re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", said)) if wanted else True


def play(scenario: Scenario, tools: Sequence[Tool], context: ToolContext, limits: TurnLimits) -> Played:
    """Do the calls that are due with the real tools and see whether the answers follow from them."""
    messages: list[Message] = []
    for turn in scenario.turns:
        messages.append({"role": "user", "content": turn.user})
        results = []
        for gold in turn.calls:
            call = Call(gold.name, gold.arguments)
            record = run_call(call, tools, context, (), limits)
            if record.verdict != "done":
                return Played((), f"{gold.name}: {record.verdict}")
            messages.append(Said("", (call,)).message())
            messages.append({"role": "tool", "name": gold.name, "content": record.result})
            results.append(record.result)
        if results and not any(holds(result, turn.answer) for result in results):
            return Played((), f"{turn.calls[-1].name}: the answer is not in the result")
        if not holds(turn.reply, turn.answer):
            return Played((), "the reply lacks the answer")
        messages.append({"role": "assistant", "content": turn.reply})
    return Played(tuple(messages))


def as_asked(turn: ScriptedTurn, calls: Sequence[CallRecord]) -> bool:
    """Whether the calls that were done are those that are due, and no others."""
    done = [(call.name, dict(call.arguments)) for call in calls if call.verdict == "done"]
    return done == [(gold.name, dict(gold.arguments)) for gold in turn.calls] and len(done) == len(calls)


def succeeded(turn: ScriptedTurn, done: Turn) -> bool:
    """Strict: every tool that is due was called and ran, nothing went wrong, and the answer is right."""
    names = [call.name for call in done.calls]
    clean = all(call.verdict == "done" for call in done.calls) and names == [gold.name for gold in turn.calls]
    return done.ended == "said" and clean and holds(done.text, turn.answer)


def as_it_is(scenario: Scenario) -> Scenario:
    """The scenario: for draws that have nothing left to make."""
    return scenario


def counted(reasons: Sequence[str]) -> Mapping[str, int]:
    """How often each reason was given, sorted by name."""
    return {reason: list(reasons).count(reason) for reason in sorted(set(reasons))}
