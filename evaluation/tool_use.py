"""What an agent does with its tools: held-out conversations, played with the real tools.

    bench = open_bench(checkpoint, data, config)
    used = bench.measure(model, tokenizer, "python", prompt)      # Used: per conversation, valid, exact, right …

Right is strict: every call that is due was made and ran, no other, and the right answer stands in the reply.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.config import EvaluationConfig
from evaluation.metric import Values
from phases.agent.calls import Message
from phases.agent.conversation import Turn
from phases.agent.memory import Memory
from phases.agent.persona import small_talk
from phases.agent.settings import DOCUMENTS, AgentSettings, open_context, open_tools, read_settings
from phases.agent.tool import Tool, ToolContext
from phases.agent.writing import NO_PROMPT, BatchWriter, Prompt
from phases.baking.config import BakingConfig, made_with
from phases.baking.facts import fact_scenarios
from phases.baking.items import Conversation, make_conversations
from phases.baking.memories import Memories
from phases.baking.scenario import Kind, Scenario, as_asked, succeeded
from phases.baking.trajectories import converse
from phases.checkpoint import Checkpoint
from phases.dataset import Split
from phases.tasks.item import Item

DRAWN: dict[str, Any] = {"temperature": 0.7, "seed": (41,)}
"""Small talk is drawn, not the likeliest: a trait of strength one half would show always or never."""
_RECALL_SEED = 7_919
"""Recall is measured on names of its own."""


@dataclass(frozen=True)
class Used:
    """What became of each conversation, 1 or 0."""

    valid: Values
    """It had calls, and all of them could be read and fitted their schemas."""
    executed: Values
    """It had calls, and all of them ran."""
    exact: Values
    """Its calls were the ones that are due, to the letter."""
    right: Values
    """All that is asked for: calls, and the answer."""
    replies: tuple[str, ...]
    """What was said last."""


def _used(scenarios: Sequence[Scenario], done: Sequence[Sequence[Turn]]) -> Used:
    calls = [[call for turn in turns for call in turn.calls] for turns in done]
    bad = ("malformed", "invalid")
    pairs = [list(zip(scenario.turns, turns, strict=True)) for scenario, turns in zip(scenarios, done, strict=True)]
    return Used(
        valid=np.array([bool(c) and all(one.verdict not in bad for one in c) for c in calls]),
        executed=np.array([bool(c) and all(one.verdict == "done" for one in c) for c in calls]),
        exact=np.array([all(as_asked(scripted, turn.calls) for scripted, turn in pair) for pair in pairs]),
        right=np.array([all(succeeded(scripted, turn) for scripted, turn in pair) for pair in pairs]),
        replies=tuple(turns[-1].text for turns in done),
    )


@dataclass(frozen=True)
class Bench:
    """Held-out conversations of an agent, and the tools that they are played with."""

    config: BakingConfig
    settings: AgentSettings
    tools: tuple[Tool, ...]
    context: ToolContext
    test: dict[Kind, tuple[Conversation, ...]]
    train: dict[Kind, tuple[Conversation, ...]]
    batch: int

    def scenarios(self, kind: Kind) -> list[Scenario]:
        """Held-out ones of a kind."""
        return [one.scenario for one in self.test[kind]]

    def writer(self, model: Any, tokenizer: Any, prompt: Prompt = NO_PROMPT, **options: Any) -> BatchWriter:
        """The model as a writer, under the agent's limits."""
        chosen = {"constrained": self.settings.constrained, "batch": self.batch, **options}
        return BatchWriter(model, tokenizer, self.tools, self.settings.limits, prompt=prompt, **chosen)

    def measure(self, model: Any, tokenizer: Any, kind: Kind, prompt: Prompt = NO_PROMPT, **options: Any) -> Used:
        """A model on the held-out conversations of a kind."""
        scenarios = self.scenarios(kind)
        with Memories(self.context, scenarios) as contexts:
            done, _ = converse(self.writer(model, tokenizer, prompt, **options).take_turns, scenarios, contexts.of)
        return _used(scenarios, done)

    def false_calls(self, model: Any, tokenizer: Any, items: Sequence[Item]) -> Values:
        """Per item that needs no tool: whether one was called all the same."""
        asked: list[list[Message]] = [[{"role": "user", "content": item.prompt}] for item in items]
        turns = self.writer(model, tokenizer).take_turns(asked, self.context)
        return np.array([bool(turn.calls) for turn in turns])

    def late_replies(self, model: Any, tokenizer: Any, turns: int, count: int) -> list[str]:
        """What is answered to the last of so many turns of small talk."""
        talk = [one.scenario.turns[0] for one in self.test["persona"]]
        scenarios = [
            Scenario(kind="persona", task="long", turns=tuple(talk[(i + k) % len(talk)] for k in range(turns)))
            for i in range(count)
        ]
        writer = self.writer(model, tokenizer, budget=self.settings.context_tokens, calls=False, **DRAWN)
        done, _ = converse(writer.take_turns, scenarios, self.context)
        return [one[-1].text for one in done]

    def recall_after(self, model: Any, tokenizer: Any, distractors: int, restart: bool, count: int) -> Values:
        """Per conversation: whether a fact is known so many turns later, or after everything but the file is gone."""
        talk = small_talk(self.config.persona.name)
        draws = fact_scenarios(talk, (distractors,), self.config.persona.traits, self.config.seed + _RECALL_SEED)
        scenarios = [scenario for _, scenario in zip(range(count), draws, strict=False)]
        writer = self.writer(model, tokenizer, budget=self.settings.context_tokens)
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{i}.sqlite" for i in range(count)]
            parts = [scenarios]
            if restart:
                cuts = (slice(None, -1), slice(-1, None))
                parts = [[s.model_copy(update={"turns": s.turns[cut]}) for s in scenarios] for cut in cuts]
            for part in parts:
                with _memories(self.context, paths) as contexts:
                    done, _ = converse(writer.take_turns, part, contexts)
        return np.array([succeeded(s.turns[-1], turns[-1]) for s, turns in zip(scenarios, done, strict=True)])


@contextlib.contextmanager
def _memories(context: ToolContext, paths: Sequence[Path]) -> Iterator[Any]:
    """For each conversation the memory in a file of its own."""
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(Memory(path, context.memory.config if context.memory else None)) for path in paths
        ]
        yield lambda index: dataclasses.replace(context, memory=opened[index])


@contextlib.contextmanager
def open_bench(checkpoint: Checkpoint, config: EvaluationConfig, training: int = 96) -> Iterator[Bench]:
    """The held-out conversations of a baking checkpoint; of training a few, as examples and for a classifier."""
    settings = read_settings(checkpoint.path)
    made = made_with(checkpoint.path)
    tools = open_tools(settings.tools, [Path(own.path) for own in settings.own_tools])
    with open_context(settings, tools, checkpoint.path / DOCUMENTS, None, "evaluation") as context:
        split: Split = config.split
        held_out = make_conversations(made, tools, context, made.seed, (split,)).by_split[split]
        shown = make_conversations(made, tools, context, made.seed, ("train",), training).by_split["train"]
        yield Bench(made, settings, tools, context, dict(held_out), dict(shown), config.batch)
