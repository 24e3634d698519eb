"""The model as a writer of conversations: a batch at a time, with the prompt that it is given, calls kept well-formed.

    write = BatchWriter(model, tokenizer, tools, TurnLimits(), prompt=Prompt(system="You are Forge.", tools=tools))
    turns = write.take_turns(conversations, context)

A prompt is what a baked model no longer needs: the persona's system text, the tools' signatures, and examples.
`take_turns` is an agent without any design; `phases.agent.acting` asks the same writer for more (`Request`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from phases.agent.calls import CallFormat, Message
from phases.agent.constraint import AllOf, Begun, CallConstraint, Constraint
from phases.agent.conversation import Contexts, Toolbox, Turn, TurnLimits, Watch, Written, nobody, take_turns
from phases.agent.design import Decoding
from phases.agent.generation import Text, first_tokens, write
from phases.agent.grammar import CallGrammar, NoCalls
from phases.agent.grounding import Grounded, Rule
from phases.agent.template import render
from phases.agent.tool import Tool
from phases.agent.working import fit
from phases.decoding import encode, stop_ids


@dataclass(frozen=True)
class Prompt:
    """What stands before a conversation."""

    system: str = ""
    tools: tuple[Tool, ...] = ()
    examples: tuple[Message, ...] = ()
    """Turns of others that show how it is done (few-shot)."""


NO_PROMPT = Prompt()


@dataclass(frozen=True)
class Request:
    """A message that is to be written."""

    messages: Sequence[Message]
    number: int = 0
    """Decides what is drawn for it, together with the seed; different for each of those that are written together."""
    examples: tuple[tuple[Message, ...], ...] = ()
    """Solved conversations to read before it, as many of them, from the first on, as there is room for."""
    begun: tuple[int, ...] = ()
    """Tokens that it begins with."""
    calls: bool = True
    """Whether any may begin."""
    rules: tuple[Rule, ...] = ()


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
        decoding: Decoding | None = None,
        summary: bool = True,
    ) -> None:
        """`tools` are those whose calls are kept well-formed; a conversation beyond `budget` tokens is summarised, or

        cut off without `summary`. `decoding` says more than `temperature`, which it stands for. Without `calls` none
        can be begun. Raises `ConfigError` for a tool that cannot be kept well-formed.
        """
        self.model, self.tokenizer, self.tools, self.limits = model, tokenizer, tuple(tools), limits
        self.prompt, self.batch, self.budget, self.share = prompt, batch, budget, 0.2 if summary else 0.0
        self.calls, self.seed = calls, list(seed)
        self.decoding = Decoding(temperature=temperature) if decoding is None else decoding
        self.grammar: CallConstraint | None = None
        if constrained and tools and calls:
            self.grammar = CallConstraint(tokenizer, CallGrammar(self.form, tools))
        self.context = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
        self.stop = stop_ids(model, tokenizer)
        self.rounds = 0
        """How often it was asked: every time draws numbers of its own."""

    @cached_property
    def form(self) -> CallFormat:
        """Of the model's calls. Raises `CheckpointError` for a chat template that knows none."""
        return CallFormat.of(self.tokenizer)

    def take_turns(
        self, conversations: Sequence[Sequence[Message]], contexts: Contexts, watch: Watch = nobody
    ) -> list[Turn]:
        """The assistant's turn in each conversation, and nothing more than that."""
        toolbox = Toolbox(self.form, self.tools, contexts)
        return take_turns(self, conversations, toolbox, self.limits, watch)

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[Written]:
        """The next assistant message of each, and whether it ended by itself."""
        requests = [Request(messages, number, calls=self.calls) for number, messages in enumerate(conversations)]
        return self.write(requests, [*self.seed, self.rounds])

    def write(self, requests: Sequence[Request], seed: Sequence[int], draw: float | None = None) -> list[Written]:
        """What each of the requests asks for. `draw`: the temperature, where the decoding has none."""
        prompts, limits = self._prompts(requests), [0] * _room(requests)
        for request in requests:
            limits[request.number] = self.limits.new_tokens
        constraint = self._constraint(requests)
        texts = write(
            self.model,
            prompts,
            limits,
            self.stop,
            self.decoding,
            constraint=constraint,
            seed=seed,
            batch=self.batch,
            draw=draw,
        )
        self.rounds += 1
        return [self._written(texts[request.number]) for request in requests]

    def firsts(self, requests: Sequence[Request], count: int) -> list[list[int]]:
        """The `count` likeliest tokens that may come first in each, after what it begins with; the likeliest first."""
        numbered = [dataclasses.replace(request, number=number) for number, request in enumerate(requests)]
        prompts = self._prompts(numbered)
        prompts = [[*prompt, *request.begun] for prompt, request in zip(prompts, numbered, strict=True)]
        constraint = self._constraint(numbered)
        after = None if constraint is None else _After(constraint, [request.begun for request in numbered])
        return first_tokens(self.model, prompts, count, after, self.batch)

    def _prompts(self, requests: Sequence[Request]) -> list[list[int]]:
        """Token ids by number; those of numbers that nobody asks for are a token that nothing is written after."""
        prompts = [[0]] * _room(requests)
        for request in requests:
            prompts[request.number] = self._encode(request)
        return prompts

    def _encode(self, request: Request) -> list[int]:
        room = self.context - self.limits.new_tokens
        kept = list(request.messages)
        if self.budget is not None:
            kept = fit(kept, self.budget, self.tokens, self.share).messages
        for count in range(len(request.examples), 0, -1):
            shown = [message for example in request.examples[:count] for message in example]
            ids = encode(self.tokenizer, self._render([*shown, *kept]))
            if len(ids) <= min(room, self.budget or room):
                return ids
        ids = encode(self.tokenizer, self._render(kept))
        # The end of a conversation that is too long says more than its beginning; a chat keeps its own to the budget.
        return ids[-room:] if len(ids) > room > 0 else ids

    def tokens(self, messages: Sequence[Message]) -> int:
        """Of a conversation with its prompt."""
        return len(encode(self.tokenizer, self._render(messages)))

    def _render(self, messages: Sequence[Message]) -> str:
        prompt = self.prompt
        return render(self.tokenizer, [*prompt.examples, *messages], prompt.tools, prompt.system)

    def _constraint(self, requests: Sequence[Request]) -> Constraint | None:
        """What all of the requests ask for: what is quick to try comes first."""
        parts: list[Constraint] = []
        if any(request.begun for request in requests):
            begun = {request.number: request.begun for request in requests}
            parts.append(Begun([begun.get(number, ()) for number in range(_room(requests))]))
        if any(request.rules for request in requests):
            rules = {request.number: request.rules for request in requests}
            parts.append(Grounded(self.tokenizer, self.form, rules))
        if not all(request.calls for request in requests):
            none = CallConstraint(self.tokenizer, NoCalls(self.form))
            parts.append(_Some({request.number: none for request in requests if not request.calls}))
        if self.grammar is not None:
            parts.append(self.grammar)
        return parts[0] if len(parts) == 1 else AllOf(parts) if parts else None

    def _written(self, text: Text) -> Written:
        ids = text.tokens
        said = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return Written(said, bool(ids) and ids[-1] in self.stop, tuple(text.logprobs))


def _room(requests: Sequence[Request]) -> int:
    """One more than the largest number."""
    return max((request.number for request in requests), default=-1) + 1


class _Some:
    """Constraints of some prompts."""

    def __init__(self, constraints: Mapping[int, Constraint]) -> None:
        self.constraints = constraints

    def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
        """Whether a token fits the prompt's own constraint, if it has one."""
        own = self.constraints.get(prompt)
        return own is None or own.fits(prompt, written, token)


class _After:
    """A constraint on texts whose beginning stands in the prompt."""

    def __init__(self, constraint: Constraint, begun: Sequence[Sequence[int]]) -> None:
        self.constraint, self.begun = constraint, begun

    def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
        """Whether a token may follow the beginning and what is written."""
        return self.constraint.fits(prompt, [*self.begun[prompt], *written], token)
