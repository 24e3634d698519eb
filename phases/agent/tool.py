"""What a tool is: one file with a JSON schema and a function, and what the function is given to work with.

    SCHEMA = {"type": "function", "function": {"name": "double", "description": "twice a number", "parameters": {…}}}

    def run(arguments, context):
        return str(2 * arguments["number"])

The schema is OpenAI's function format. `run` returns text; for what the model should read as a failure and may mend, it
raises `ToolError`. The files of `phases.agent.tools` are such tools, and so may be the user's own files
(`phases.agent.own_tool`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jsonschema

from phases.errors import ConfigError

if TYPE_CHECKING:
    from phases.agent.documents import DocumentStore
    from phases.agent.memory import Memory
    from phases.agent.sandbox.sandbox import Sandbox
    from phases.agent.search import SearchProvider

BUILT_IN = ("python", "retrieve", "search", "remember", "recall")
"""Tools that ship with the forge, each a file of `phases.agent.tools`."""


class ToolError(Exception):
    """A call that could not be done; its one line is what the model reads as the result."""


def _now() -> datetime:
    return datetime.now(UTC)


def _nothing() -> None:
    """How a tool is closed that keeps nothing running."""


@dataclass
class ToolContext:
    """What tools work with; a part that is None is not there, and a tool that needs it says so with a `ToolError`."""

    documents: "DocumentStore | None" = None
    memory: "Memory | None" = None
    sandbox: "Sandbox | None" = None
    search: "Sequence[SearchProvider]" = ()
    """Engines of the `search` tool, asked in their order until one answers."""
    session: str = "session"
    """Name of the conversation, kept with what is remembered."""
    now: Callable[[], datetime] = field(default=_now)
    """The time, so that tests can set it."""


@dataclass(frozen=True)
class Tool:
    """A tool, ready to be called."""

    name: str
    schema: Mapping[str, Any]
    """OpenAI's function format, whole."""
    run: Callable[[Mapping[str, Any], ToolContext], str]
    source: str
    """`built-in`, or the file it came from."""
    digest: str = ""
    """SHA-256 of the user's file."""
    close: Callable[[], None] = _nothing
    """Ends what the tool keeps running; a later call starts it again."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of the arguments."""
        found: Mapping[str, Any] = self.schema["function"].get("parameters", {"type": "object", "properties": {}})
        return found


def built_in(name: str) -> Tool:
    """A tool that ships with the forge. Raises `ConfigError` for another name."""
    if name not in BUILT_IN:
        raise ConfigError(f"tool '{name}': unknown; choose from {', '.join(BUILT_IN)}, or give a file of your own")
    # Here, since they import this module; by their names, so that a result's fingerprint covers them.
    from phases.agent.tools import python, recall, remember, retrieve, search

    modules: Mapping[str, Any] = {
        "python": python, "recall": recall, "remember": remember, "retrieve": retrieve, "search": search
    }  # fmt: skip
    return Tool(name, modules[name].SCHEMA, modules[name].run, "built-in")


def check_schema(schema: Any, where: str) -> str:
    """The name of a tool. Raises `ConfigError` unless its schema is one of OpenAI's function format."""
    try:
        function = schema["function"]
        name, _ = str(function["name"]), str(function["description"])
        jsonschema.Draft202012Validator.check_schema(function.get("parameters", {}))
    except (TypeError, KeyError) as error:
        raise ConfigError(
            f"tool {where}: its SCHEMA lacks {error}; write {{'type': 'function', 'function': {{'name': …, "
            "'description': …, 'parameters': {…}}}"
        ) from None
    except jsonschema.SchemaError as error:
        raise ConfigError(f"tool {where}: its parameters are no JSON schema ({error.message}); mend them") from None
    if not name.isidentifier():
        raise ConfigError(f"tool {where}: its name '{name}' has signs other than letters, digits and _; change it")
    return name
