"""`forge chat`: talk to an agent in the terminal; its tools run, its memory lasts.

    forge chat checkpoints/laptop/baking
    echo "compute 37*28" | forge chat checkpoints/laptop/baking --json

What is said goes into the memory's file (beside the agent, or --memory), and what the agent keeps there it knows in the
next session. Lines that begin with a slash are for the program: /help lists them. Answers go to standard output, calls
and hints to standard error.
"""

import argparse
import json
import math
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flows.console import say
from phases.errors import InputError

if TYPE_CHECKING:
    from phases.agent.acting import Acting
    from phases.agent.calls import Message
    from phases.agent.conversation import CallRecord, Turn
    from phases.agent.design import Design
    from phases.agent.tool import ToolContext

HELP = """/tools            the tools there are
/memory [WORDS]   what is kept, or what of it comes to mind
/forget WORDS     forget what matches
/reset            begin anew; the memory stays
/quit             end (Ctrl-D)"""


def chat(arguments: argparse.Namespace) -> int:
    """Talk until the input ends."""
    from phases.agent.acting import Acting
    from phases.agent.library import read_library
    from phases.agent.minds import Minds
    from phases.agent.settings import DOCUMENTS, check_own, open_context, open_tools, read_settings
    from phases.checkpoint import open_checkpoint

    _check(arguments)
    checkpoint = open_checkpoint(arguments.agent)
    settings = read_settings(checkpoint.path)
    tools = open_tools(settings.tools, arguments.tool)
    for name in check_own(settings, tools):
        say(f"chat: the agent's own tool '{name}' is not here; give its file with --tool")
    if words := in_words(settings.design):
        say(f"chat: the agent works by a design of its own: {words}")
    session = uuid.uuid4().hex[:12]
    with open_context(settings, tools, checkpoint.path / DOCUMENTS, memory_path(arguments), session) as context:
        acting = Acting(
            Minds(checkpoint),
            tools,
            settings,
            library=read_library(checkpoint.path),
            system=arguments.system,
            show_tools=arguments.show_tools,
            temperature=arguments.temperature,
            seed=(arguments.seed,),
        )
        acting.writer()  # now rather than at the first question
        Session(acting, context, arguments.json).run(_lines(arguments.json))
    return 0


def in_words(design: "Design") -> str:
    """What a design does beyond the default: its techniques, and by their names the settings that none of them sets."""
    from phases.adas.pool import POOL
    from phases.agent.design import Design

    plain = Design().model_dump()
    left = {
        (part, name): value
        for part, settings in design.model_dump().items()
        for name, value in settings.items()
        if value != plain[part][name]
    }
    said = []
    for technique in sorted(POOL.values(), key=lambda one: -sum(map(len, one.patch.values()))):
        sets = {(part, name): value for part, settings in technique.patch.items() for name, value in settings.items()}
        sets = {key: value for key, value in sets.items() if value != plain[key[0]][key[1]]}
        if sets and sets.items() <= left.items():
            said.append(technique.name)
            left = {key: value for key, value in left.items() if key not in sets}
    return ", ".join([*said, *(f"{part}.{name}={value}" for (part, name), value in left.items())])


def _check(arguments: argparse.Namespace) -> None:
    """Raise `InputError` for the first option that makes no sense."""
    if not 0 <= arguments.temperature < math.inf:
        raise InputError(f"--temperature {arguments.temperature}: give 0 (the likeliest token) or more")
    if not 0 <= arguments.seed < 2**63:
        raise InputError(f"--seed {arguments.seed}: give a number from 0 to 2⁶³ − 1")
    if arguments.no_memory and arguments.memory is not None:
        raise InputError("--no-memory and --memory do not go together; leave one out")


def memory_path(arguments: argparse.Namespace) -> Path | None:
    """The memory's file: the one that was given, or beside the agent; None when nothing is to be kept."""
    if arguments.no_memory:
        return None
    beside: Path = arguments.agent.resolve()
    return arguments.memory or beside.with_name(f"{beside.name}.memory.sqlite")


def _lines(as_json: bool) -> Iterator[str]:
    """What the user says, line by line; a Ctrl-C at the prompt begins the line anew."""
    asked = sys.stdin.isatty() and not as_json
    while True:
        try:
            yield input("you> " if asked else "")
        except EOFError:
            if asked:
                print()
            return
        except UnicodeDecodeError:
            raise InputError("the input is not UTF-8; give it as UTF-8 text") from None
        except KeyboardInterrupt:
            if not asked:
                raise
            print()


class Session:
    """One conversation."""

    def __init__(self, acting: "Acting", context: "ToolContext", as_json: bool) -> None:
        self.acting, self.context, self.as_json = acting, context, as_json
        self.memory, self.name = context.memory, acting.settings.persona.name
        self.messages: list[Message] = []

    def run(self, lines: Iterator[str]) -> None:
        """Answer every line until there are no more, or /quit."""
        if sys.stdin.isatty() and not self.as_json:
            say(f"{self.name}; /help for help, Ctrl-D to end")
        for line in lines:
            text = line.strip()
            if text in ("/quit", "/exit"):
                return
            if text.startswith("/"):
                self._command(text)
            elif text:
                self._answer(text)

    def _answer(self, text: str) -> None:
        self._log("user", text)
        asked: list[Message] = [*self.messages, {"role": "user", "content": text}]
        try:
            turn = self.acting.take_turns([asked], self.context, self._show)[0]
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            say("stopped; say something else, or /quit")
            return
        self.messages = [*asked, *turn.messages]
        self._log("assistant", turn.text)
        self._say(text, turn)

    def _say(self, text: str, turn: "Turn") -> None:
        if not self.as_json:
            name = f"{self.name}> " if sys.stdin.isatty() else ""
            print(f"{name}{turn.text}", flush=True)
            return
        calls = [
            {"name": call.name, "arguments": dict(call.arguments), "verdict": call.verdict, "result": call.result}
            for call in turn.calls
        ]
        made = {"user": text, "calls": calls, "text": turn.text, "ended": turn.ended}
        print(json.dumps(made, ensure_ascii=False), flush=True)

    def _show(self, record: "CallRecord") -> None:
        if not self.as_json:
            arguments = json.dumps(dict(record.arguments), ensure_ascii=False)
            print(f"  [{record.name or 'call'} {arguments} → {record.result}]", file=sys.stderr, flush=True)

    def _log(self, role: str, text: str) -> None:
        if self.memory is not None:
            self.memory.log(self.context.session, role, text)

    def _command(self, text: str) -> None:
        name, _, words = text.partition(" ")
        known: dict[str, Callable[[str], None]] = {
            "/help": lambda _: print(HELP),
            "/tools": self._tools,
            "/memory": self._recall,
            "/forget": self._forget,
            "/reset": self._reset,
        }
        if name in known:
            known[name](words.strip())
        else:
            say(f"chat: no command {name}; /help lists them")

    def _tools(self, _: str) -> None:
        for tool in self.acting.tools:
            names = ", ".join(tool.parameters.get("properties", {}))
            print(f"{tool.name}({names})  {tool.schema['function']['description']}")

    def _recall(self, words: str) -> None:
        if self.memory is None:
            say("chat: no memory here")
        elif words:
            for one in self.memory.recall(words):
                print(f"{one.at}  {one.kind}  {one.text}")
        else:
            for fact in self.memory.facts():
                print(f"{fact.at}  {fact.text}")

    def _forget(self, words: str) -> None:
        if self.memory is None or not words:
            say("chat: say what to forget: /forget WORDS" if self.memory else "chat: no memory here")
        else:
            print(f"forgotten: {self.memory.forget(query=words)}")

    def _reset(self, _: str) -> None:
        self.messages = []
