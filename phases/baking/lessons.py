"""What is taught and baked from: an agent's conversations, the prompts that ask for them, and their rows of tokens."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from phases.agent.persona import persona_prompt
from phases.agent.settings import AgentSettings, OwnTool, open_context, open_tools
from phases.agent.template import encode_chat
from phases.agent.writing import NO_PROMPT, Prompt
from phases.baking.config import Bake, BakingConfig
from phases.baking.items import Conversation, Conversations, make_conversations
from phases.baking.rows import BakingRows, Encoded, open_rehearsal, pack_conversations
from phases.baking.scenario import TOOL_KINDS, Scenario
from phases.baking.traces import Traces, read_traces
from phases.dataset import Dataset
from phases.training.config import TrainingConfig

_MIXED = 23
"""Stream of random numbers."""


class Lessons:
    """The conversations of one run."""

    def __init__(self, config: BakingConfig, data: Dataset, documents: Path) -> None:
        """`documents`: the agent's index. Raises `ConfigError` for tools that there are not, or do not fit together."""
        self.config, self.data, self.documents = config, data, documents
        self.tools = open_tools(config.tools.names, [Path(path) for path in config.tools.own])

    @property
    def settings(self) -> AgentSettings:
        """What the agent is besides its weights."""
        tools, config = self.config.tools, self.config
        own = [tool for tool in self.tools if tool.digest]
        return AgentSettings(
            persona=config.persona,
            tools=tools.names,
            own_tools=tuple(OwnTool(name=tool.name, path=tool.source, sha256=tool.digest) for tool in own),
            limits=tools.limits,
            constrained=tools.constrained,
            memory=config.memory,
            search=tools.search,
            context_tokens=max(64, self.config.row_tokens or self.data.block_tokens),
        )

    @cached_property
    def conversations(self) -> Conversations:
        """What is learnt from and tested on; made anew by whoever asks, always the same."""
        with open_context(self.settings, self.tools, self.documents, None, "baking") as context:
            return make_conversations(self.config, self.tools, context, self.config.seed)

    @cached_property
    def traces(self) -> Traces:
        """The user's own conversations."""
        with open_context(self.settings, self.tools, self.documents, None, "baking") as context:
            return read_traces(self.config.scenarios.traces, self.tools, context, self.config.tools.limits)

    def prompt(self, scenario: Scenario) -> Prompt:
        """The prompt that asks for such a conversation."""
        if scenario.kind in TOOL_KINDS or any(turn.calls for turn in scenario.turns):
            return Prompt(tools=self.tools)
        if scenario.kind != "persona":
            return NO_PROMPT
        persona = self.config.persona
        asked = persona.model_copy(update={"traits": scenario.traits}) if scenario.traits else persona
        return Prompt(system=persona_prompt(asked))

    def baked_prompt(self, bake: Bake) -> Prompt:
        """The prompt that a bake does away with."""
        if bake.prompt == "tools":
            return Prompt(tools=self.tools)
        return Prompt(system=persona_prompt(self.config.persona) if bake.prompt == "persona" else bake.text)

    def encoded(self, tokenizer: Any, prompted: bool) -> list[Encoded]:
        """The conversations of training in tokens, mixed, with or without the prompts that ask for them."""
        encoded = []
        generated = self.conversations.of("train", tuple(self.conversations.by_split["train"]))
        for one in (*generated, *self.traces.kept):
            prompt = self.prompt(one.scenario) if prompted else NO_PROMPT
            encoded.append(_encode(tokenizer, one, prompt))
        return encoded

    def others(self, tokenizer: Any, index: int, count: int) -> list[Encoded]:
        """As many conversations of other kinds: what was baked before without a prompt, what will be with its own.

        Else the model would learn to do what this prompt asks for whatever is said (docs/log.md).
        """
        own, before = self.config.bakes[index].kinds, {k for bake in self.config.bakes[:index] for k in bake.kinds}
        kinds = [kind for kind in self.conversations.by_split["train"] if kind not in own]
        found = []
        for one in spread(self.conversations.of("train", kinds), count):
            prompt = NO_PROMPT if one.scenario.kind in before else self.prompt(one.scenario)
            found.append(_encode(tokenizer, one, prompt))
        return found

    def rows(self, encoded: Sequence[Encoded], config: TrainingConfig, where: str, index: int = 0) -> BakingRows:
        """Rows of conversations in a random order, and of rehearsal."""
        seed, pad = self.config.seed, int(self.data.tokenizer.eos_token_id)
        order = np.random.default_rng([seed, _MIXED, index]).permutation(len(encoded))
        length = self.config.row_tokens or self.data.block_tokens
        packed = pack_conversations([encoded[i] for i in order], length, pad, where)
        mixture = open_rehearsal(self.data, self.config.mix.model_dump(), seed + index, config.prompt_weight)
        return BakingRows(packed, mixture, self.config.rehearsal, seed + index, pad)


def _encode(tokenizer: Any, one: Conversation, prompt: Prompt) -> Encoded:
    """A conversation under a prompt, which no teacher has read."""
    tokens, ours = encode_chat(tokenizer, one.played.messages, prompt.tools, prompt.system)
    return Encoded(tokens, ours, [-1] * len(tokens))


def spread(found: Sequence[Conversation], count: int) -> list[Conversation]:
    """`count` of the conversations, evenly spread, so that every kind has its share."""
    if len(found) <= count:
        return list(found)
    return [found[i * len(found) // count] for i in range(count)]
