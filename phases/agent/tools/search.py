"""The tool that searches: by the engines of the config, in their order, or in the agent's own documents."""

from collections.abc import Mapping
from typing import Any

from phases.agent.search import SearchUnavailable
from phases.agent.tool import ToolContext, ToolError
from phases.agent.tools.retrieve import shortened

HITS, HIT_CHARS = 2, 64
SCHEMA = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "search the web",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}


def run(arguments: Mapping[str, Any], context: ToolContext) -> str:
    """Hits as `1. title: text (url)`. Raises `ToolError` that says why when no engine answers."""
    if not context.search:
        raise ToolError("search: no engine here")
    reasons = []
    for engine in context.search:
        try:
            hits = engine.search(str(arguments["query"]), HITS)
        except SearchUnavailable as error:
            reasons.append(f"{engine.name}: {error}")
            continue
        lines = [f"{n}. {hit.title}: {shortened(hit.text, HIT_CHARS)} ({hit.url})" for n, hit in enumerate(hits, 1)]
        return "\n".join(lines) or "nothing found"
    raise ToolError("search: " + "; ".join(reasons))
