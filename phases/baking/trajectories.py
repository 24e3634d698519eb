"""What the prompted model says by itself: sampled, its calls run, kept where it came out right, and read once more.

    drawn = sample(model, tokenizer, conversations, prompt, config, tools, context, seed)
    hidden_MD, encoded = read_prompted(model, tokenizer, drawn.kept, prompt)

A trajectory of a tool conversation is kept only when every call ran and the right answer was given; of small talk, when
it came to an end. Everything else is counted under the reason why not. The prompted model is then read over what was
kept: its last hidden states at the assistant's tokens are the teacher's distributions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from phases.agent.calls import Message
from phases.agent.conversation import Contexts, TakeTurns, Turn
from phases.agent.template import encode_chat
from phases.agent.tool import Tool, ToolContext
from phases.agent.writing import BatchWriter, Prompt
from phases.baking.config import BakingConfig
from phases.baking.items import Conversation
from phases.baking.memories import Memories
from phases.baking.rows import Encoded
from phases.baking.scenario import Scenario, succeeded

Done = list[Turn]
"""The assistant's turns of one conversation."""


@dataclass(frozen=True)
class Drawn:
    """What the prompted model said, and what of it is learnt from."""

    kept: tuple[tuple[Message, ...], ...]
    asked: int
    reasons: tuple[str, ...]
    """Why each of the others is not learnt from."""

    @property
    def share(self) -> float:
        """Of those that were asked, the kept."""
        return len(self.kept) / max(1, self.asked)


def converse(
    take_turns: TakeTurns, scenarios: Sequence[Scenario], contexts: Contexts
) -> tuple[list[Done], list[list[Message]]]:
    """Go through all turns of all scenarios with an agent; (its turns, whole conversations).

    `take_turns`: of a `BatchWriter` or an `Acting`; `contexts`: what its tools work with, for each scenario or all.
    """
    done: list[Done] = [[] for _ in scenarios]
    messages: list[list[Message]] = [[] for _ in scenarios]
    for number in range(max((len(scenario.turns) for scenario in scenarios), default=0)):
        going = [i for i, scenario in enumerate(scenarios) if number < len(scenario.turns)]
        for i in going:
            messages[i].append({"role": "user", "content": scenarios[i].turns[number].user})
        turns = take_turns([messages[i] for i in going], _of(contexts, going))
        for i, turn in zip(going, turns, strict=True):
            done[i].append(turn)
            messages[i] += turn.messages
    return done, messages


def _of(contexts: Contexts, going: Sequence[int]) -> Contexts:
    """The contexts of those scenarios that go on."""
    return contexts if isinstance(contexts, ToolContext) else lambda index: contexts(going[index])


def sample(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    prompt: Prompt,
    config: BakingConfig,
    tools: tuple[Tool, ...],
    context: ToolContext,
    seed: Sequence[int],
) -> Drawn:
    """The prompted model's own answers to the users of some conversations."""
    write = BatchWriter(
        model,
        tokenizer,
        tools,
        config.tools.limits,
        prompt=prompt,
        constrained=config.tools.constrained,
        temperature=config.sampling.temperature,
        seed=seed,
        batch=128,
    )
    scenarios = [one.scenario for one in conversations]
    with Memories(context, scenarios) as contexts:
        done, messages = converse(write.take_turns, scenarios, contexts.of)
    reasons = [_problem(scenario, turns) for scenario, turns in zip(scenarios, done, strict=True)]
    kept = [tuple(said) for said, reason in zip(messages, reasons, strict=True) if not reason]
    return Drawn(tuple(kept), len(scenarios), tuple(reason for reason in reasons if reason))


def _problem(scenario: Scenario, turns: Done) -> str:
    """Why a conversation is not learnt from; empty when it is."""
    for scripted, turn in zip(scenario.turns, turns, strict=True):
        if turn.ended != "said":
            return turn.ended
        wrong = [call.verdict for call in turn.calls if call.verdict != "done"]
        if wrong:
            return f"call {wrong[0]}"
        if not turn.text.strip():
            return "nothing said"
        if not succeeded(scripted, turn):
            return "other calls" if len(turn.calls) != len(scripted.calls) else "wrong answer"
    return ""


@torch.no_grad()
def read_prompted(
    model: Any, tokenizer: Any, conversations: Sequence[Sequence[Message]], prompt: Prompt, batch: int = 32
) -> tuple[torch.Tensor, list[Encoded]]:
    """((M, D) the prompted model's last hidden state before each of the assistant's M tokens, the same conversations

    without the prompt, whose tokens are marked with their place among the M). Raises `ValueError` for a template under
    which the assistant's tokens depend on the prompt.
    """
    with_prompt = [encode_chat(tokenizer, messages, prompt.tools, prompt.system) for messages in conversations]
    encoded, place = [], 0
    for (prompted, ours), messages in zip(with_prompt, conversations, strict=True):
        tokens, mine = encode_chat(tokenizer, messages)
        if [t for t, m in zip(tokens, mine, strict=True) if m] != [t for t, m in zip(prompted, ours, strict=True) if m]:
            raise ValueError("the assistant's tokens are others with the prompt; this template cannot be baked")
        marks = [-1] * len(tokens)
        for position, is_ours in enumerate(mine):
            if is_ours:
                marks[position], place = place, place + 1
        encoded.append(Encoded(tokens, mine, marks))
    hidden: list[torch.Tensor] = [torch.empty(0)] * len(conversations)
    order = sorted(range(len(conversations)), key=lambda i: len(with_prompt[i][0]))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        width = max(len(with_prompt[i][0]) for i in chosen)
        tokens_BT = torch.tensor([with_prompt[i][0] + [0] * (width - len(with_prompt[i][0])) for i in chosen])
        states_BTD = model.base_model(input_ids=tokens_BT, use_cache=False).last_hidden_state
        for row, i in enumerate(chosen):
            before = torch.tensor([t - 1 for t, mine in enumerate(with_prompt[i][1]) if mine])
            hidden[i] = states_BTD[row, before].float()
    width = int(model.config.hidden_size)
    return torch.cat(hidden) if hidden else torch.empty(0, width), encoded
