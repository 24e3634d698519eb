"""Techniques of memory and retrieval: what comes to mind before answering, what is kept, how much is read."""

from typing import Any

from phases.adas.technique import Need, Technique


def _one(
    name: str, group: str, says: str, part: str, paper: str = "", needs: tuple[Need, ...] = (), **settings: Any
) -> Technique:
    return Technique(name=name, group=group, says=says, paper=paper, needs=needs, patch={part: settings})


def _passages(name: str, says: str, first: int) -> Technique:
    return _one(name, "passages", says, "retrieving", "2005.11401", _DOCUMENTS, first=first)


def _kept(
    name: str, group: str, says: str, paper: str = "", needs: tuple[Need, ...] = (), **settings: Any
) -> Technique:
    return _one(name, group, says, "remembering", paper, needs, **settings)


_MEMORY: tuple[Need, ...] = ("memory",)
_DOCUMENTS: tuple[Need, ...] = ("documents",)
REMEMBERING = (
    _kept("1 memory first", "recall", "a fact that comes to mind is read", "2304.03442", _MEMORY, recall_first=1),
    _kept("3 memories first", "recall", "three such facts are read", "2304.03442", _MEMORY, recall_first=3),
    _kept("keeps by itself", "keeping", "what the user says of theirs is kept", "2310.08560", _MEMORY, keep=True),
    _kept("context of 128", "context", "128 tokens of the conversation are read", context_tokens=128),
    _kept("window of 192", "context", "192 tokens, and no summary of the rest", context_tokens=192, summary=False),
    _passages("1 passage first", "a passage is read first", 1),
    _passages("2 passages first", "two passages are read first", 2),
    _passages("4 passages first", "four passages are read first", 4),
    _one("keywords", "query", "look-ups leave stop words out", "retrieving", "", _DOCUMENTS, query="keywords"),
    _one("quoted part", "query", "look-ups ask for the quoted part", "retrieving", "", _DOCUMENTS, query="quoted"),
)  # fmt: skip
