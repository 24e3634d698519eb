"""The model as a writer of conversations: a batch at a time, with the prompt that it is given, calls kept well-formed.

    write = BatchWriter(model, tokenizer, tools, TurnLimits(), prompt=Prompt(system="You are Forge.", tools=tools))
    turns = take_turns(write, conversations, toolbox, limits)

A prompt is what a baked model no longer needs: the persona's system text, the tools' signatures, and examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phases.agent.calls import CallFormat, Message
from phases.agent.conversation import TurnLimits, Written
from phases.agent.grammar import CallGrammar, Constrained, NoCalls
from phases.agent.template import render
from phases.agent.tool import Tool
from phases.agent.working import fit
from phases.decoding import Choice, Sampler, decode, encode, likeliest, stop_ids


@dataclass(frozen=True)
class Prompt:
    """What stands before a conversation."""

    system: str = ""
    tools: tuple[Tool, ...] = ()
    examples: tuple[Message, ...] = ()
    """Turns of others that show how it is done (few-shot)."""


NO_PROMPT = Prompt()


class BatchWriter:
    """Writes the next message of many conversations."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        tools: Sequence[Tool],
        limits: TurnLimits,
        *,
        prompt: Prompt = NO_PROMPT,
        constrained: bool = True,
        temperature: float = 0.0,
        seed: Sequence[int] = (0,),
        batch: int = 64,
        budget: int | None = None,
        calls: bool = True,
    ) -> None:
        """`tools` are those whose calls are kept well-formed; a conversation beyond `budget` tokens is summarised.

        Without `calls` none can be begun. Raises `ConfigError` for a tool that cannot be kept well-formed.
        """
        self.model, self.tokenizer, self.limits, self.prompt = model, tokenizer, limits, prompt
        self.grammar: CallGrammar | NoCalls | None = None
        if not calls:
            self.grammar = NoCalls(CallFormat.of(tokenizer))
        elif constrained and tools:
            self.grammar = CallGrammar(CallFormat.of(tokenizer), tools)
        self.temperature, self.seed, self.batch, self.budget = temperature, list(seed), batch, budget
        self.context = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
        self.stop = stop_ids(model, tokenizer)
        self.rounds = 0
        """How often it was asked: every time draws numbers of its own."""

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[Written]:
        """The next assistant message of each, and whether it ended by itself."""
        prompts = [self._encode(messages) for messages in conversations]
        room = self.context - self.limits.new_tokens
        # The end of a conversation that is too long says more than its beginning; a chat keeps its own to the budget.
        prompts = [ids[-room:] if len(ids) > room > 0 else ids for ids in prompts]
        limits = [self.limits.new_tokens] * len(prompts)
        written = decode(self.model, prompts, limits, self.stop, self._choice(len(prompts)), self.batch)
        self.rounds += 1
        return [self._written(ids) for ids in written]

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        kept = list(messages) if self.budget is None else fit(messages, self.budget, self.tokens).messages
        return encode(self.tokenizer, self._render(kept))

    def tokens(self, messages: Sequence[Message]) -> int:
        """Of a conversation with its prompt."""
        return len(encode(self.tokenizer, self._render(messages)))

    def _render(self, messages: Sequence[Message]) -> str:
        prompt = self.prompt
        return render(self.tokenizer, [*prompt.examples, *messages], prompt.tools, prompt.system)

    def _choice(self, prompts: int) -> Choice:
        choose: Choice = likeliest
        if self.temperature > 0:
            choose = Sampler([self.temperature] * prompts, [*self.seed, self.rounds])
        return choose if self.grammar is None else Constrained(self.tokenizer, self.grammar, choose, prompts)

    def _written(self, ids: list[int]) -> Written:
        return Written(str(self.tokenizer.decode(ids, skip_special_tokens=True)), bool(ids) and ids[-1] in self.stop)
