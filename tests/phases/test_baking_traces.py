"""The user's own conversations: done again, verified, counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from phases.agent.conversation import TurnLimits
from phases.agent.sandbox.sandbox import Sandbox
from phases.agent.tool import ToolContext, built_in
from phases.baking.traces import read_traces, scenario_of
from phases.errors import DataError


def row(code: str = "3*4", reply: str = "It is 12.", answer: str = "12", as_text: bool = False) -> dict[str, Any]:
    arguments: Any = {"code": code}
    function = {"name": "python", "arguments": json.dumps(arguments) if as_text else arguments}
    return {
        "messages": [
            {"role": "system", "content": "You have tools."},
            {"role": "user", "content": "what is three times four?"},
            {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]},
            {"role": "tool", "content": "a lie"},
            {"role": "assistant", "content": reply},
        ],
        "answer": answer,
    }


def test_calls_are_made_again_and_only_right_answers_stay(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    rows = [row(), row(as_text=True), row("3*"), row(answer="13"), row(reply="No idea.")]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    with Sandbox() as sandbox:
        found = read_traces((str(path),), [built_in("python")], ToolContext(sandbox=sandbox), TurnLimits())
    assert found.counts == {
        "kept": 2,
        "python: failed": 1,
        "python: the answer is not in the result": 1,
        "the reply lacks the answer": 1,
    }
    assert [m["content"] for m in found.kept[0].played.messages if m["role"] == "tool"] == ["12"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"text": "x"}, "has no list of 'messages'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "speaks before the user"),
        ({"messages": [{"role": "user", "content": "x"}]}, "without a reply"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "the role 'robot'"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{}]}]},
            "not in OpenAI's",
        ),
    ],
)
def test_what_is_no_conversation_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        scenario_of(wrong, "traces.jsonl: line 3")
