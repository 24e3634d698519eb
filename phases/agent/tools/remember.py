"""The tool that keeps a fact: remember(fact) → "kept"."""

from collections.abc import Mapping
from typing import Any

from phases.agent.tool import ToolContext, ToolError
from phases.errors import InputError

SCHEMA = {
    "type": "function",
    "function": {
        "name": "remember",
        "description": "keep a fact",
        "parameters": {
            "type": "object",
            "properties": {"fact": {"type": "string"}},
            "required": ["fact"],
            "additionalProperties": False,
        },
    },
}


def run(arguments: Mapping[str, Any], context: ToolContext) -> str:
    """Keep the fact. Raises `ToolError` when there is no memory, nothing to keep, or no room on the disk."""
    if context.memory is None:
        raise ToolError("no memory here")
    try:
        context.memory.remember(arguments["fact"], context.session)
    except InputError as error:
        raise ToolError(str(error)) from None
    return "kept"
