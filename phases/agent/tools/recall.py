"""The tool that finds what was kept: recall(query) → the best fact, else words of another session, or "nothing".

Facts come first however well an episode fits. Episodes of this session are in the context or its summary already, the
question that is being answered among them; and a question that was asked another time answers nothing.
"""

from collections.abc import Mapping
from typing import Any

from phases.agent.tool import ToolContext, ToolError
from phases.errors import InputError

_EPISODES = 20
SCHEMA = {
    "type": "function",
    "function": {
        "name": "recall",
        "description": "what was kept",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
            "additionalProperties": False,
        },
    },
}


def run(arguments: Mapping[str, Any], context: ToolContext) -> str:
    """One text. Raises `ToolError` when there is no memory, or it cannot be read."""
    if context.memory is None:
        raise ToolError("no memory here")
    try:
        found = context.memory.recall(arguments["query"], 1, ("fact",))
        if not found:
            said = context.memory.recall(arguments["query"], _EPISODES, ("episode",))
            found = [one for one in said if one.session != context.session and not one.text.rstrip().endswith("?")]
    except InputError as error:
        raise ToolError(str(error)) from None
    return found[0].text if found else "nothing"
