"""The conversations of a run: generated, split by content, their calls done, and what was rejected counted.

A question and its rephrasings share a split, and so do all conversations about a name or a chunk of the documents.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from phases.agent.conversation import TurnLimits
from phases.agent.persona import LEVELS, Persona, answer_in_manner, small_talk
from phases.agent.tool import Tool, ToolContext
from phases.baking.config import BakingConfig
from phases.baking.facts import fact_scenarios, told_name
from phases.baking.memories import play_alone
from phases.baking.questions import document_scenarios, python_scenarios
from phases.baking.scenario import Kind, Played, Scenario, ScriptedTurn, as_it_is, counted
from phases.dataset import SPLITS, Split
from phases.errors import ConfigError
from phases.tasks.collect import apportion, seeded, split_by_content

Draw = tuple[str, Callable[[], Scenario | None]]
"""What decides the split, and the making of the scenario: None where none comes of it."""


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
    config: BakingConfig,
    tools: Sequence[Tool],
    context: ToolContext,
    seed: int,
    splits: Sequence[Split] = SPLITS,
    most: int | None = None,
) -> Conversations:
    """All conversations, or those of some splits, or the first so many of each kind there.

    A kind of which a split has fewer than `LEAST` is left out, and counted as rejected. Raises `ConfigError` when no
    kind is left.
    """
    by_split: dict[Split, dict[Kind, tuple[Conversation, ...]]] = {split: {} for split in SPLITS}
    made: dict[Kind, int] = {}
    rejected: dict[Kind, Mapping[str, int]] = {}
    for kind, count in config.scenarios.train.items():
        if count and _possible(kind, tools, context):
            # All numbers say which split a draw belongs to, also where only one split is made.
            wanted: dict[Split, int] = dict.fromkeys(SPLITS, config.scenarios.held_out)
            wanted["train"] = count
            limits = config.tools.limits
            filling = _Filling(wanted, splits, tools, context, limits, max(wanted.values()) if most is None else most)
            filling.fill(_draws(kind, config, context, seed))
            found = sum(map(len, filling.found.values()))
            made[kind], rejected[kind] = found + len(filling.reasons), counted(filling.reasons)
            if any(len(filling.found[split]) < LEAST for split in splits):
                # Text without headings or sentences, say: what cannot be tested is not taught either.
                rejected[kind] = {**rejected[kind], "too few for every split": found}
                continue
            for split in splits:
                by_split[split][kind] = tuple(filling.found[split])
    if not any(by_split[split] for split in splits):
        raise ConfigError("baking.scenarios: no kind has enough conversations; give more text, tools or kinds")
    return Conversations(by_split, made, rejected)


LEAST = 2
"""Conversations of a kind that every split must have."""
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


class _Filling:
    """Distinct conversations for each split until all are full, and why others were rejected."""

    def __init__(
        self,
        wanted: Mapping[Split, int],
        splits: Sequence[Split],
        tools: Sequence[Tool],
        context: ToolContext,
        limits: TurnLimits,
        most: int,
    ) -> None:
        self.most = most
        self.wanted, self.splits, self.tools, self.context, self.limits = wanted, splits, tools, context, limits
        self.found: dict[Split, list[Conversation]] = {split: [] for split in SPLITS}
        self.reasons: list[str] = []
        self.seen: set[str] = set()

    def fill(self, draws: Iterable[Draw]) -> None:
        """Take draws until every split is full, or there are no more worth trying."""
        for group, make in itertools.islice(draws, 20 * sum(self.wanted.values())):
            split = split_by_content(group, self.wanted)
            if split in self.splits and not self._full(split):
                self._take(split, make())
            if all(self._full(s) for s in self.splits):
                return

    def _full(self, split: Split) -> bool:
        return len(self.found[split]) >= min(self.most, self.wanted[split])

    def _take(self, split: Split, scenario: Scenario | None) -> None:
        if scenario is None or scenario.key in self.seen:
            return
        self.seen.add(scenario.key)
        played = play_alone(scenario, self.tools, self.context, self.limits)
        if played.rejected:
            self.reasons.append(played.rejected)
        else:
            self.found[split].append(Conversation(scenario, played))


def _draws(kind: Kind, config: BakingConfig, context: ToolContext, seed: int) -> Iterator[Draw]:
    """Draws of a kind, repeats among them."""
    talk = small_talk(config.persona.name)
    if kind == "python":
        tasks = config.scenarios.python
        counts = apportion(4 * config.scenarios.train[kind] + 16 * config.scenarios.held_out, [t.weight for t in tasks])
        each = [python_scenarios(task, number, seed) for task, number in zip(tasks, counts, strict=True)]
        for scenario in itertools.chain.from_iterable(itertools.zip_longest(*each)):
            if scenario is not None:
                yield str(scenario.turns[0].calls[0].arguments), partial(as_it_is, scenario)
    elif kind == "memory":
        for scenario in fact_scenarios(talk, config.scenarios.between, config.persona.traits, seed):
            yield told_name(scenario), partial(as_it_is, scenario)
    elif kind == "persona":
        yield from persona_scenarios(config.persona, seed)
    elif context.documents is not None:
        yield from document_scenarios(context.documents, kind, context, seed)


def persona_scenarios(persona: Persona, seed: int) -> Iterator[Draw]:
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
            made = Scenario(kind="persona", task="small talk", turns=(turn,), traits=strengths)
            yield one.question, partial(as_it_is, made)
