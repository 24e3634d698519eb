"""What designs are tried on: conversations and questions with verifiable answers, by domain and split.

    with open_course(parent, data, AdasConfig()) as course:
        course.trials["validation"]["python"]        # Trials: what the user says turn by turn, and when it was right
        course.lessons["python"]                     # solved training conversations

The domains are those that the agent was made for: reasoning and recall (of what stands in the question), each kind of
conversation of baking, and small talk in the persona's manner. Copying is left out of all that is learnt or searched
for: what a design brings there is transfer. A parent without `agent.json` has no tools, and fewer domains.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from phases.agent.calls import Message
from phases.agent.conversation import Turn
from phases.agent.library import Example, Library
from phases.agent.persona import MANNERS, Persona, shown
from phases.agent.settings import DOCUMENTS, SETTINGS, AgentSettings, open_context, open_tools, read_settings
from phases.agent.tool import Tool, ToolContext
from phases.baking.config import made_with
from phases.baking.items import Conversation, make_conversations
from phases.baking.scenario import Scenario, ScriptedTurn, succeeded
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset, Split
from phases.tasks.item import Item, extract_answer

ITEMS = {"reasoning": "reasoning", "recall": "memory"}
"""Domains that are questions of the data, by the stream that they are in."""
NAMES = {"memory": "facts"}
"""Kinds of conversation whose domain is called otherwise."""
LEFT_OUT = "copying"
SHOWN = 0.5
"""Strength from which a trait has to show; below it, it has not to."""
Messages = tuple[Message, ...]


@dataclass(frozen=True)
class Trial:
    """One conversation, and when it came out right."""

    scenario: Scenario
    solved: Messages
    """As it should go."""
    item: Item | None = None
    """The question of the data that it is."""

    def right(self, turns: Sequence[Turn], persona: Persona) -> float:
        """1 when it was right, else 0; small talk: the share of the persona's traits that are as they should be."""
        if self.item is not None:
            return float(extract_answer(turns[-1].text) == self.item.answer)
        good = all(succeeded(asked, done) for asked, done in zip(self.scenario.turns, turns, strict=True))
        traits = [trait for trait in persona.traits if trait in MANNERS]
        if self.scenario.kind != "persona" or not traits or not good:
            return float(good)
        text = " ".join(turn.text for turn in turns)
        return sum(shown(text, trait) == (persona.traits[trait] >= SHOWN) for trait in traits) / len(traits)


Trials = Mapping[str, tuple[Trial, ...]]
"""By domain."""


@dataclass(frozen=True)
class Course:
    """An agent's domains, and what it works with there."""

    settings: AgentSettings
    tools: tuple[Tool, ...]
    context: ToolContext
    lessons: Mapping[str, tuple[Messages, ...]]
    """Solved training conversations by domain."""
    trials: Mapping[Split, Trials]

    @property
    def domains(self) -> tuple[str, ...]:
        """Those that count: all but the one that is left out."""
        return tuple(self.lessons)

    def library(self, each: int) -> Library:
        """The first solved conversations of every domain."""
        chosen = [(domain, messages) for domain, every in self.lessons.items() for messages in every[:each]]
        return Library(examples=tuple(Example(domain=domain, messages=messages) for domain, messages in chosen))


@contextlib.contextmanager
def open_course(parent: Checkpoint, data: Dataset, splits: Sequence[Split], learnt: int) -> Iterator[Course]:
    """The course of a parent; `learnt`: training conversations of each domain at most.

    Raises `ConfigError` for the agent's own tools that are not there any more.
    """
    settings = agent_settings(parent)
    tools = open_tools(settings.tools, [Path(own.path) for own in settings.own_tools])
    with open_context(settings, tools, parent.path / DOCUMENTS, None, "adas") as context:
        lessons = {domain: tuple(map(_solved, data.items("train", name)[:learnt])) for domain, name in ITEMS.items()}
        trials: dict[Split, dict[str, tuple[Trial, ...]]] = {split: {} for split in splits}
        for split in splits:
            for domain, name in {**ITEMS, LEFT_OUT: "copying"}.items():
                if items := data.items(split, name):
                    trials[split][domain] = tuple(map(_asked, items))
        if (parent.path / SETTINGS).is_file():
            made = made_with(parent.path)
            most = max(learnt, made.scenarios.held_out)
            found = make_conversations(made, tools, context, made.seed, ("train", *splits), most).by_split
            for kind, conversations in found["train"].items():
                lessons[NAMES.get(kind, kind)] = tuple(one.played.messages for one in conversations[:learnt])
            for split in splits:
                for kind, held_out in found[split].items():
                    trials[split][NAMES.get(kind, kind)] = tuple(map(_played, held_out))
        there = [domain for domain in lessons if lessons[domain] and all(trials[split].get(domain) for split in splits)]
        yield Course(settings, tools, context, {domain: lessons[domain] for domain in there}, trials)


def first(trials: Trials, domains: tuple[str, ...], units: int, turns: int | None = None) -> Trials:
    """So many trials of some domains, evenly spread over their order; of at most so many turns, where there are any."""
    chosen = {}
    for domain in domains:
        short = tuple(one for one in trials[domain] if turns is None or len(one.scenario.turns) <= turns)
        chosen[domain] = _spread(short or trials[domain], units)
    return chosen


def _spread(found: tuple[Trial, ...], units: int) -> tuple[Trial, ...]:
    return found if len(found) <= units else tuple(found[i * len(found) // units] for i in range(units))


def agent_settings(parent: Checkpoint) -> AgentSettings:
    """Those of the parent; of a model that is no agent yet, one without tools."""
    return read_settings(parent.path) if (parent.path / SETTINGS).is_file() else AgentSettings(tools=())


def _solved(item: Item) -> Messages:
    return ({"role": "user", "content": item.prompt}, {"role": "assistant", "content": item.completion})


def _asked(item: Item) -> Trial:
    turn = ScriptedTurn(user=item.prompt, reply=item.completion, answer=item.answer)
    return Trial(Scenario(kind="own", task=item.task, turns=(turn,)), _solved(item), item)


def _played(conversation: Conversation) -> Trial:
    return Trial(conversation.scenario, conversation.played.messages)
