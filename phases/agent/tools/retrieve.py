"""The tool that looks up the agent's own documents."""

from collections.abc import Mapping
from typing import Any

from phases.agent.tool import ToolContext, ToolError

RESULT_CHARS = 160
"""Characters of a passage that are returned: a small model reads all of them."""
SCHEMA = {
    "type": "function",
    "function": {
        "name": "retrieve",
        "description": "look up the documents",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}


def run(arguments: Mapping[str, Any], context: ToolContext) -> str:
    """The best passage from its beginning, on one line. Raises `ToolError` without documents."""
    if context.documents is None:
        raise ToolError("retrieve: no documents here")
    found = context.documents.search(str(arguments["query"]), 1)
    return shortened(found[0].text, RESULT_CHARS) if found else "nothing found"


def shortened(text: str, characters: int) -> str:
    """The text on one line, cut at a word; a first word that is too long is cut itself."""
    flat = " ".join(text.split())
    return flat if len(flat) <= characters else flat[: characters + 1].rsplit(" ", 1)[0][:characters]
