"""The tool that searches: by the engines of the config, in their order, or in the agent's own documents."""

from collections.abc import Mapping
from typing import Any

from phases.agent.search import Hit, SearchUnavailable
from phases.agent.tool import ToolContext, ToolError
from phases.agent.tools.retrieve import shortened

HITS, TEXT_CHARS, HIT_CHARS = 2, 64, 160
"""Hits that are returned; characters of a hit's text, and of its whole line at most."""
SCHEMA = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "search the web",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}


def run(arguments: Mapping[str, Any], context: ToolContext) -> str:
    """Hits as `1. title: text (url)`, of the first engine that has any.

    Raises `ToolError` that says why when no engine answers.
    """
    if not context.search:
        raise ToolError("search: no engine here")
    reasons = []
    for engine in context.search:
        try:
            hits = engine.search(str(arguments["query"]), HITS)
        except SearchUnavailable as error:
            reasons.append(f"{engine.name}: {error}")
            continue
        if hits:
            return "\n".join(_line(number, hit) for number, hit in enumerate(hits, 1))
    if len(reasons) < len(context.search):
        return "nothing found"
    raise ToolError(f"search: offline ({'; '.join(reasons)})")


def _line(number: int, hit: Hit) -> str:
    """One hit; where it is too long its title and then its text give way. Half an address is none: it is left out."""
    address = f" ({hit.url})" if 0 < len(hit.url) <= HIT_CHARS // 2 else ""
    lead = f"{number}. {shortened(hit.title, (HIT_CHARS - len(address)) // 2)}"
    text = shortened(hit.text, min(TEXT_CHARS, HIT_CHARS - len(lead) - len(address) - 2))
    return lead + (f": {text}" if text else "") + address
