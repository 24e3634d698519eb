"""`agent.json`: what an agent is besides its weights. Chat, evaluation and serving obey it.

    settings = read_settings(checkpoint.path)
    tools = open_tools(settings.tools, own=())
    with open_context(settings, tools, checkpoint.path / DOCUMENTS, Path("memory.sqlite"), "monday") as context: …

Own tools are named with the SHA-256 of their file and never loaded from a checkpoint: opening somebody's agent must not
run somebody's code. Whoever has the file gives it again.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from phases.agent.conversation import TurnLimits
from phases.agent.design import Design
from phases.agent.documents import DocumentStore
from phases.agent.memory import Memory, MemoryConfig
from phases.agent.own_tool import own_tool
from phases.agent.persona import Persona
from phases.agent.sandbox.sandbox import Sandbox
from phases.agent.search import SearchConfig, open_providers
from phases.agent.tool import BUILT_IN, Tool, ToolContext, built_in
from phases.errors import CheckpointError, ConfigError
from phases.strict import StrictModel

SETTINGS, DOCUMENTS = "agent.json", "documents.sqlite"


class OwnTool(StrictModel):
    """A tool of the user's own, which does not ride along."""

    name: str
    path: str
    """Where it was."""
    sha256: str
    """Of its file."""


class AgentSettings(StrictModel):
    """`agent.json`."""

    persona: Persona = Persona()
    """Who the agent is."""
    tools: tuple[str, ...] = BUILT_IN
    """Tools that ship with the forge."""
    own_tools: tuple[OwnTool, ...] = ()
    """Tools of the user's own, which whoever uses the agent has to give."""
    limits: TurnLimits = TurnLimits()
    """What a turn may cost."""
    constrained: bool = True
    """Let the model write well-formed calls only."""
    memory: MemoryConfig = MemoryConfig()
    """What it keeps, and for how long."""
    search: SearchConfig = SearchConfig()
    """Engines of the search tool."""
    system: str = ""
    """A system prompt to go on giving; empty: what it said is baked in."""
    context_tokens: int = Field(512, ge=64)
    """Tokens of a conversation that the model gets to read; what is older is summarised."""
    design: Design = Design()
    """How it works: decoding, votes, calls, memory, experts; the default does nothing special."""


def read_settings(path: Path) -> AgentSettings:
    """Those of a checkpoint. Raises `CheckpointError` when there are none, or they are damaged."""
    file = path / SETTINGS
    try:
        return AgentSettings.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no agent (no {SETTINGS}); give a checkpoint that the baking phase wrote"
        ) from None
    except (OSError, ValueError, ValidationError):
        raise CheckpointError(f"{file}: truncated or altered; restore it from a copy or run the phase again") from None


def open_tools(names: Sequence[str], own: Sequence[Path]) -> tuple[Tool, ...]:
    """Tools by name, and the user's own. Raises `ConfigError` for an unknown one or a name that stands twice."""
    tools = [*(built_in(name) for name in names), *(own_tool(path) for path in own)]
    known = [tool.name for tool in tools]
    if repeated := sorted({name for name in known if known.count(name) > 1}):
        raise ConfigError(f"tool '{repeated[0]}' is there twice; rename one")
    return tuple(tools)


def check_own(settings: AgentSettings, tools: Sequence[Tool]) -> list[str]:
    """Own tools of the agent that were not given; raises `ConfigError` for one that is not the file it knew."""
    given = {tool.name: tool for tool in tools}
    for own in settings.own_tools:
        if own.name in given and given[own.name].digest != own.sha256:
            raise ConfigError(
                f"tool '{own.name}': {given[own.name].source} is not the file that the agent was made with"
            )
    return [own.name for own in settings.own_tools if own.name not in given]


@contextlib.contextmanager
def open_context(
    settings: AgentSettings, tools: Sequence[Tool], documents: Path | None, memory: Path | None, session: str
) -> Iterator[ToolContext]:
    """What the tools work with, opened and closed again, as is what they keep running.

    `memory`: its file; None: it is forgotten at the end.
    """
    names = {tool.name for tool in tools}
    with contextlib.ExitStack() as stack:
        for tool in tools:
            stack.callback(tool.close)
        store = stack.enter_context(DocumentStore(documents)) if documents is not None and documents.is_file() else None
        kept = stack.enter_context(Memory(memory, settings.memory)) if names & {"remember", "recall"} else None
        sandbox = stack.enter_context(Sandbox()) if "python" in names else None
        engines = open_providers(settings.search, store) if "search" in names else ()
        yield ToolContext(documents=store, memory=kept, sandbox=sandbox, search=tuple(engines), session=session)
