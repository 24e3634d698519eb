"""A memory for turns of which nothing may come: it is read at once, and written to when such a turn has been chosen.

context = tentative(context)
… tools run …
context.memory.commit()
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import cast

from phases.agent.memory import Memory, MemoryKind, Recalled, keepable
from phases.agent.tool import ToolContext


class Deferred:
    """What tools do with a memory. A fact that waits does not come back before it is kept."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._waiting: list[Callable[[], object]] = []

    def remember(self, text: str, session: str) -> None:
        """Keep a fact later. Raises `DataError` for an empty one now."""
        keepable(text)
        self._waiting.append(lambda: self.memory.remember(text, session))

    def recall(
        self, query: str, limit: int | None = None, kinds: Sequence[MemoryKind] = ("fact", "episode")
    ) -> list[Recalled]:
        """What comes back now; that it was of use is noted later."""
        found = self.memory.recall(query, limit, kinds, note=False)
        self._waiting.append(lambda: self.memory.note(found))
        return found

    def commit(self) -> None:
        """Do what waits, in its order. May raise `StorageError`."""
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            act()


def tentative(context: ToolContext) -> ToolContext:
    """The context with such a memory, if it has one."""
    if context.memory is None:
        return context
    return dataclasses.replace(context, memory=cast(Memory, Deferred(context.memory)))


def commit(context: ToolContext) -> None:
    """Do what waits in such a context; in another one nothing does."""
    memory: object = context.memory
    if isinstance(memory, Deferred):
        memory.commit()
