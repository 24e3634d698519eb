"""The agent that is served: what it answers to a request, one at a time.

    with contextlib.ExitStack() as held:
        agent = ServedAgent.open(checkpoint, (Path("double.py"),), Path("memory.sqlite"), held)
        answer = agent.chat(asked, meter)

A request without tools is a turn of `forge chat`: by the agent's design, with its own tools, which run here. One with
tools is a message that the model writes with these in its prompt; its calls are the client's to run.
"""

import contextlib
import dataclasses
import secrets
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from jinja2 import TemplateError

from flows.serving.metering import Enough, Meter, MeteredActing, MeteredWriter
from flows.serving.problems import Problem, too_long
from flows.serving.requests import Asked, ChatAsked, TextAsked
from phases.agent.calls import Call, Message
from phases.agent.design import Decoding, Design
from phases.agent.generation import write
from phases.agent.library import Library, read_library
from phases.agent.memory import Memory
from phases.agent.minds import Minds
from phases.agent.settings import DOCUMENTS, AgentSettings, open_context, open_tools, read_settings
from phases.agent.template import render
from phases.agent.tool import Tool, ToolContext
from phases.agent.writing import BatchWriter, Prompt, Request
from phases.checkpoint import Checkpoint
from phases.decoding import encode, stop_ids
from phases.errors import ConfigError

TEXT_TOKENS = 16
"""Tokens of a plain completion where nothing is said, as at OpenAI."""
Finish = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class Answer:
    """What is answered."""

    text: str
    finish: Finish
    calls: tuple[Call, ...] = ()
    """For the client to run."""


@dataclass(frozen=True)
class ServedAgent:
    """An agent, opened; of one thread."""

    name: str
    digest: str
    minds: Minds
    tools: tuple[Tool, ...]
    settings: AgentSettings
    library: Library
    context: ToolContext
    keeps: bool
    """Whether its memory outlives a request."""

    @classmethod
    def open(
        cls, checkpoint: Checkpoint, own: Sequence[Path], memory: Path | None, held: contextlib.ExitStack
    ) -> "ServedAgent":
        """Open what it needs, until `held` is closed. Raises `InputError` as `forge chat` does."""
        settings = read_settings(checkpoint.path)
        tools = open_tools(settings.tools, own)
        context = held.enter_context(open_context(settings, tools, checkpoint.path / DOCUMENTS, memory, "served"))
        name, library = checkpoint.path.resolve().name, read_library(checkpoint.path)
        return cls(name, checkpoint.digest, Minds(checkpoint), tools, settings, library, context, memory is not None)

    @property
    def design(self) -> Design:
        """How it works."""
        return self.settings.design

    @cached_property
    def context_tokens(self) -> int:
        """Tokens that the model can read."""
        return int(getattr(self.minds.model(self.design).config, "max_position_embeddings", None) or 2**31)

    def warm(self) -> None:
        """Write one token: whatever is compiled or opened on first use is so now."""
        model, stop = self.minds.model(self.design), stop_ids(self.minds.model(self.design), self.minds.tokenizer)
        write(model, [[min(stop, default=0)]], [1], stop, self.design.decoding, constraint=None, seed=[0], batch=1)

    def chat(self, asked: ChatAsked, meter: Meter) -> Answer:
        """Answer a conversation. Raises `Problem` for one that cannot be answered, `Cancelled`."""
        system, messages = asked.conversation()
        system = self.settings.system if system is None else system
        try:
            return (self._message if asked.by_client else self._turn)(asked, system, messages, meter)
        except TemplateError as error:
            raise Problem(400, f"messages: the model's chat template refuses them ({error})", "messages") from None

    def _turn(self, asked: ChatAsked, system: str, messages: list[Message], meter: Meter) -> Answer:
        """A turn as `forge chat` takes it; only what falls out of the context may be too long, not the question."""
        design = self.design.model_copy(update={"decoding": asked.decoding(self.design.decoding)})
        tools = () if asked.tool_choice == "none" else self.tools
        meter.calls = bool(tools)
        meter.alone, meter.live = _alone(design.decoding), _is_said_as_written(design) and not tools
        shown = tools if design.prompting.show_tools else ()
        question = self._tokens(messages[-1:], shown, system)
        self._check(question, "messages")
        budget = design.remembering.context_tokens or self.settings.context_tokens
        read = min(self._tokens(messages, shown, system), max(budget, question))
        settings = self._settings(asked, design, read)
        meter.begin()
        with self.session(messages) as context:
            acting = MeteredActing(
                meter,
                self.minds,
                tools,
                settings,
                library=self.library,
                system=system,
                seed=(_seed(asked),),
            )
            turn = acting.take_turns([messages], context)[0]
            text, is_cut = meter.cut(turn.text)
            if context.memory is not None:
                context.memory.log(context.session, "assistant", text)
        return Answer(text, "stop" if is_cut or turn.ended == "said" else "length")

    def _message(self, asked: ChatAsked, system: str, messages: list[Message], meter: Meter) -> Answer:
        """One message with the client's tools: without votes, and without what a design knows of its own tools."""
        decoding = asked.decoding(self.design.decoding)
        tools = asked.client_tools()
        meter.calls = bool(tools) and asked.tool_choice != "none"
        meter.alone, meter.live = _alone(decoding), not meter.calls
        read = self._tokens(messages, tools, system)
        self._check(read, "messages")
        settings = self._settings(asked, self.design, read)
        meter.begin()
        writer = MeteredWriter(self._writer(tools, settings, Prompt(system, tools), decoding), meter)
        written = writer.write([Request(messages)], [_seed(asked)])[0]
        said, known = writer.form.parse(written.text), {tool.name for tool in tools}
        if said.calls and not said.problem and all(call.name in known for call in said.calls):
            return Answer(
                said.content, "tool_calls", said.calls[:1] if asked.parallel_tool_calls is False else said.calls
            )
        text, is_cut = meter.cut(written.text.strip())
        return Answer(text, "stop" if is_cut or written.whole else "length")

    def complete(self, asked: TextAsked, meter: Meter) -> Answer:
        """What follows a text. Of the design its model and its way of choosing tokens hold."""
        model, tokenizer = self.minds.model(self.design), self.minds.tokenizer
        ids = list(tokenizer(asked.prompt)["input_ids"])
        if not ids:
            raise Problem(400, "prompt: no tokens in it; give another text", "prompt")
        self._check(len(ids), "prompt")
        decoding, stop = asked.decoding(self.design.decoding), stop_ids(model, tokenizer)
        limit = min(asked.max_tokens or TEXT_TOKENS, self.context_tokens - len(ids))
        meter.alone = meter.live = _alone(decoding)
        meter.stripped = False
        meter.begin()
        with meter.watching(model, tokenizer) as watch:
            try:
                texts = write(model, [ids], [limit], stop, decoding, constraint=None, seed=[_seed(asked)], batch=1)
                tokens = texts[0].tokens
            except Enough:
                tokens = watch.tokens
        meter.completion_tokens = len(tokens)
        text, is_cut = meter.cut(str(tokenizer.decode(tokens, skip_special_tokens=True)))
        return Answer(text, "stop" if is_cut or tokens[-1] in stop else "length")

    def _check(self, tokens: int, param: str) -> None:
        if tokens >= self.context_tokens:
            raise too_long(tokens, self.context_tokens, param)

    def _tokens(self, messages: Sequence[Message], tools: Sequence[Tool], system: str) -> int:
        return len(encode(self.minds.tokenizer, render(self.minds.tokenizer, messages, tools, system)))

    def _settings(self, asked: ChatAsked, design: Design, read: int) -> AgentSettings:
        """The agent's settings for a request that has so many tokens to read."""
        wanted = asked.limit or self.settings.limits.new_tokens
        room = max(1, min(wanted, self.context_tokens - read))
        limits = self.settings.limits.model_copy(update={"new_tokens": room})
        return self.settings.model_copy(update={"design": design, "limits": limits})

    def _writer(
        self, tools: Sequence[Tool], settings: AgentSettings, prompt: Prompt, decoding: Decoding
    ) -> BatchWriter:
        """A writer of calls that are well-formed, where the client's schemas are such that they can be kept so."""
        model, tokenizer, limits = self.minds.model(self.design), self.minds.tokenizer, settings.limits
        try:
            return BatchWriter(
                model, tokenizer, tools, limits, prompt=prompt, decoding=decoding, constrained=settings.constrained
            )
        except ConfigError:
            return BatchWriter(model, tokenizer, tools, limits, prompt=prompt, decoding=decoding, constrained=False)

    @contextlib.contextmanager
    def session(self, messages: Sequence[Message]) -> Iterator[ToolContext]:
        """What the tools work with: the memory that lasts, or one that knows this conversation and nothing else.

        What was said earlier counts as another session, since what was remembered then is gone by now.
        """
        session = uuid.uuid4().hex[:12]
        context = dataclasses.replace(self.context, session=session)
        with contextlib.ExitStack() as held:
            if context.memory is not None and not self.keeps:
                context.memory = held.enter_context(Memory(None, self.settings.memory))
                for one in messages[:-1]:
                    if one["role"] in ("user", "assistant") and one["content"]:
                        context.memory.log(f"before {session}", one["role"], one["content"])
            if context.memory is not None:
                context.memory.log(session, "user", messages[-1]["content"])
            yield context


def _seed(asked: Asked) -> int:
    """What is drawn follows from it; where the client asks for drawing without one, nothing does."""
    if asked.seed is not None:
        return asked.seed % 2**63
    return secrets.randbits(63) if asked.temperature else 0


def _alone(decoding: Decoding) -> bool:
    """Whether one text is written at a time, a token a step."""
    return decoding.beams == 1 and decoding.contrastive is None


def _is_said_as_written(design: Design) -> bool:
    """Whether an answer without calls is final as it is written: no vote chooses it, nothing is said anew or joined."""
    prompting = design.prompting
    whole = design.voting.samples > 1 or prompting.reflect != "never" or prompting.decompose
    return _alone(design.decoding) and not whole
