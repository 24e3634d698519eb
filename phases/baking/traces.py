"""The user's own conversations: read, done once more with the real tools, and kept where they end in the right answer.

    {"messages": [{"role": "user", "content": "compute 3*4"}, {"role": "assistant", …}, …], "answer": "12"}

Messages are in OpenAI's format. Results that stand in a trace are not believed: the calls are made again, and what the
tools say now is what is learnt from. A trace whose calls fail, or whose answer does not follow, is counted and left
out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phases.agent.conversation import TurnLimits
from phases.agent.tool import Tool, ToolContext
from phases.baking.items import Conversation
from phases.baking.memories import play_alone
from phases.baking.scenario import GoldCall, Scenario, ScriptedTurn, counted
from phases.data.rows import read_rows
from phases.errors import DataError


@dataclass(frozen=True)
class Traces:
    """What came of the user's conversations."""

    kept: tuple[Conversation, ...] = ()
    rejected: tuple[str, ...] = ()
    """Why each of the others was left out."""

    @property
    def counts(self) -> dict[str, int]:
        """How many were kept, and how many were left out for which reason; empty when there were none."""
        return {"kept": len(self.kept), **counted(self.rejected)} if self.kept or self.rejected else {}


def read_traces(paths: Sequence[str], tools: Sequence[Tool], context: ToolContext, limits: TurnLimits) -> Traces:
    """All traces of the files. Raises `DataError` that names the file and line of one that is no conversation."""
    kept, rejected = [], []
    for path in map(Path, paths):
        for where, row in read_rows(path):
            scenario = scenario_of(row, f"{path}: {where}")
            played = play_alone(scenario, tools, context, limits)
            if played.rejected:
                rejected.append(played.rejected)
            else:
                kept.append(Conversation(scenario, played))
    return Traces(tuple(kept), tuple(rejected))


def scenario_of(row: Mapping[str, Any], where: str) -> Scenario:
    """A conversation as turns: what the user says, the calls that follow, and what is said at the end."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise DataError(f"{where}: has no list of 'messages'; write OpenAI's chat format")
    turns: list[ScriptedTurn] = []
    for message in messages:
        role, content = message.get("role"), message.get("content") or ""
        if role == "user":
            turns.append(ScriptedTurn(user=str(content)))
        elif role == "assistant":
            if not turns:
                raise DataError(f"{where}: the assistant speaks before the user; mend or remove it")
            calls = tuple(_call(one, where) for one in message.get("tool_calls") or ())
            update = {"calls": (*turns[-1].calls, *calls)} if calls else {"reply": str(content)}
            turns[-1] = turns[-1].model_copy(update=update)
        elif role not in ("system", "tool"):
            raise DataError(f"{where}: a message with the role {role!r}; use system, user, assistant or tool")
    if not turns or not all(turn.reply for turn in turns):
        raise DataError(f"{where}: a turn without a reply of the assistant; mend or remove it")
    turns[-1] = turns[-1].model_copy(update={"answer": str(row.get("answer") or "")})
    return Scenario(kind="own", task="trace", turns=tuple(turns))


def _call(call: Any, where: str) -> GoldCall:
    try:
        function = call["function"]
        arguments = function["arguments"]
        return GoldCall(
            name=function["name"], arguments=json.loads(arguments) if isinstance(arguments, str) else arguments
        )
    except (TypeError, KeyError, ValueError):
        raise DataError(f"{where}: a tool call that is not in OpenAI's format; mend or remove it") from None
