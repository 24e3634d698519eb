"""The tool that runs Python: in the sandbox, like a cell of a notebook."""

from collections.abc import Mapping
from typing import Any

from phases.agent.tool import ToolContext, ToolError

SCHEMA = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "run Python",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
}


def run(arguments: Mapping[str, Any], context: ToolContext) -> str:
    """What the code prints, and the value of its last expression. Raises `ToolError` with its exception."""
    if context.sandbox is None:
        raise ToolError("python: no sandbox here")
    outcome = context.sandbox.run(str(arguments["code"]))
    if outcome.error is not None:
        before = outcome.output.strip()
        raise ToolError(f"{before} {outcome.error}".strip())
    return outcome.output.strip() or "(no output)"
