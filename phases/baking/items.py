"""The conversations of a run: generated, split by content, their calls done, and what was rejected counted.

A question and its rephrasings share a split, and so do all conversations about a name or a chunk of the documents.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from phases.agent.conversation import TurnLimits
from phases.agent.documents import DocumentStore
from phases.agent.memory import Memory
from phases.agent.persona import LEVELS, Persona, answer_in_manner, small_talk
from phases.agent.tool import Tool, ToolContext
from phases.baking.config import BakingConfig
from phases.baking.facts import fact_scenarios, told_name
from phases.baking.questions import document_scenarios, python_scenarios
from phases.baking.scenario import Kind, Played, Scenario, ScriptedTurn, counted, play
from phases.dataset import SPLITS, Split
from phases.errors import ConfigError
from phases.tasks.collect import apportion, seeded, split_by_content

@dataclass(frozen=True)
class Conversation:
    """A scenario whose calls have been done."""

    scenario: Scenario
    played: Played


@dataclass(frozen=True)
class Conversations:
    """What a run learns from and is tested on."""

    by_split: Mapping[Split, Mapping[Kind, tuple[Conversation, ...]]]
    made: Mapping[Kind, int]
    """Conversations that were generated, by kind."""
    rejected: Mapping[Kind, Mapping[str, int]]
    """Why some were taken out, and how many."""

    def of(self, split: Split, kinds: Sequence[Kind]) -> list[Conversation]:
        """Those of a split and of some kinds, in order."""
        return [one for kind in kinds for one in self.by_split[split].get(kind, ())]


def make_conversations(
    config: BakingConfig, tools: Sequence[Tool], context: ToolContext, seed: int
) -> Conversations:
    """All conversations. Raises `ConfigError` for a kind of which held-out ones are lacking."""
    by_split: dict[Split, dict[Kind, tuple[Conversation, ...]]] = {split: {} for split in SPLITS}
    made: dict[Kind, int] = {}
    rejected: dict[Kind, Mapping[str, int]] = {}
    for kind, count in config.scenarios.train.items():
        if count and _possible(kind, tools, context):
            wanted: dict[Split, int] = dict.fromkeys(SPLITS, config.scenarios.held_out)
            wanted["train"] = count
            found, reasons = _fill(_draws(kind, config, context, seed), wanted, tools, context, config.tools.limits)
            _require(kind, found)
            for split in SPLITS:
                by_split[split][kind] = tuple(found[split])
            made[kind], rejected[kind] = sum(map(len, found.values())) + len(reasons), counted(reasons)
    return Conversations(by_split, made, rejected)


NEEDED: Mapping[Kind, tuple[str, ...]] = {
    "python": ("python",),
    "retrieve": ("retrieve",),
    "search": ("search",),
    "memory": ("remember", "recall"),
    "persona": (),
}


def _possible(kind: Kind, tools: Sequence[Tool], context: ToolContext) -> bool:
    """Whether the agent has what a kind needs."""
    have = {tool.name for tool in tools}
    return set(NEEDED[kind]) <= have and (kind not in ("retrieve", "search") or context.documents is not None)


def _fill(
    draws: Iterable[tuple[str, Scenario]],
    wanted: Mapping[Split, int],
    tools: Sequence[Tool],
    context: ToolContext,
    limits: TurnLimits,
) -> tuple[dict[Split, list[Conversation]], list[str]]:
    """Distinct conversations for each split until all are full or the draws end, and why others were rejected."""
    result: dict[Split, list[Conversation]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    reasons: list[str] = []
    for group, scenario in itertools.islice(draws, 20 * sum(wanted.values())):
        split = split_by_content(group, wanted)
        if scenario.key in seen or len(result[split]) >= wanted[split]:
            continue
        seen.add(scenario.key)
        with own_memory(context, scenario) as own:
            played = play(scenario, tools, own, limits)
        if played.rejected:
            reasons.append(played.rejected)
            continue
        result[split].append(Conversation(scenario, played))
        if all(len(result[s]) >= wanted[s] for s in SPLITS):
            break
    return result, reasons


@contextlib.contextmanager
def own_memory(context: ToolContext, scenario: Scenario) -> Iterator[ToolContext]:
    """The context of one conversation: with an empty memory of its own, where it has to do with memory."""
    if context.memory is None or scenario.kind not in ("memory", "own"):
        yield context
        return
    with Memory(None, context.memory.config) as memory:
        yield dataclasses.replace(context, memory=memory)


def _draws(kind: Kind, config: BakingConfig, context: ToolContext, seed: int) -> Iterator[tuple[str, Scenario]]:
    """(what decides the split, scenario) of a kind, repeats among them."""
    talk = small_talk(config.persona.name)
    if kind == "python":
        tasks = config.scenarios.python
        counts = apportion(4 * config.scenarios.train[kind] + 16 * config.scenarios.held_out, [t.weight for t in tasks])
        each = [python_scenarios(task, number, seed) for task, number in zip(tasks, counts, strict=True)]
        for scenario in itertools.chain.from_iterable(itertools.zip_longest(*each)):
            if scenario is not None:
                yield str(scenario.turns[0].calls[0].arguments), scenario
    elif kind == "memory":
        for scenario in fact_scenarios(talk, config.scenarios.distractors, config.persona.traits, seed):
            yield told_name(scenario), scenario
    elif kind == "persona":
        yield from persona_scenarios(config.persona, seed)
    elif context.documents is not None:
        for scenario in document_scenarios(context.documents, kind, context, seed):
            yield str(scenario.turns[0].calls[0].arguments), scenario


def persona_scenarios(persona: Persona, seed: int) -> Iterator[tuple[str, Scenario]]:
    """Small talk: each question with the persona's own strengths, then again with others.

    So that the prompt is worth reading: a model that had only ever seen one persona would not look at its traits.
    """
    rng = seeded(seed, "persona")
    questions = small_talk(persona.name)
    rng.shuffle(questions)
    for others in (False, True, True):
        for one in questions:
            strengths = {trait: rng.choice(list(LEVELS)) if others else own for trait, own in persona.traits.items()}
            turn = ScriptedTurn(user=one.question, reply=answer_in_manner(one.base, strengths, rng))
            yield one.question, Scenario(kind="persona", task="small talk", turns=(turn,), traits=strengths)


def _require(kind: Kind, found: Mapping[Split, Sequence[Conversation]]) -> None:
    for split in SPLITS:
        if len(found[split]) < 2:
            raise ConfigError(
                f"baking.scenarios: {len(found[split])} {kind} conversations for {split}; widen what they are made from, "
                f"or set scenarios.train.{kind}=0"
            )
