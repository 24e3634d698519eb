"""Each conversation has a memory of its own, which holds what its scenario says is known when it begins.

with Memories(context, scenarios) as memories:
    run_call(call, tools, memories.of(3), …)
"""

import dataclasses
from collections.abc import Sequence

from phases.agent.conversation import TurnLimits
from phases.agent.memory import Memory
from phases.agent.tool import Tool, ToolContext
from phases.baking.scenario import Played, Scenario, play

_EARLIER = "earlier"
"""The session that known facts were told in."""


class Memories:
    """The memories of many conversations, opened when first asked for and closed at the end."""

    def __init__(self, context: ToolContext, scenarios: Sequence[Scenario]) -> None:
        """`context`: what the tools work with; without a memory there, no conversation has one."""
        self.context, self.scenarios = context, scenarios
        self._opened: dict[int, Memory] = {}

    def of(self, index: int) -> ToolContext:
        """The context of a conversation."""
        if self.context.memory is None:
            return self.context
        if index not in self._opened:
            self._opened[index] = memory = Memory(None, self.context.memory.config)
            for fact in self.scenarios[index].known:
                memory.remember(fact, _EARLIER)
        return dataclasses.replace(self.context, memory=self._opened[index])

    def __enter__(self) -> "Memories":
        return self

    def __exit__(self, *_: object) -> None:
        for memory in self._opened.values():
            memory.close()


def play_alone(scenario: Scenario, tools: Sequence[Tool], context: ToolContext, limits: TurnLimits) -> Played:
    """`play` with a memory of its own, which is opened only where a call that is due needs one (2 ms)."""
    if not any(call.name in ("remember", "recall") for turn in scenario.turns for call in turn.calls):
        return play(scenario, tools, context, limits)
    with Memories(context, [scenario]) as memories:
        return play(scenario, tools, memories.of(0), limits)
