"""What a memory gives back, and how times stand in its file.

    Fact(id=1, text="my boat is called Zumi", at=…, session="monday", episode=7, uses=0, last_used=None, …)

Times are kept as ISO 8601 in UTC with microseconds, always of the same length: their order as text is that in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from phases.errors import StorageError

MemoryKind = Literal["fact", "episode"]
FACT_COLUMNS = "id, text, at, session, episode, uses, last_used, superseded_by"
EPISODE_COLUMNS = "id, text, at, session, role"


@dataclass(frozen=True)
class Fact:
    """Something known."""

    id: int
    text: str
    at: datetime
    """When it was last told."""
    session: str
    """Where it was last told."""
    episode: int | None
    """The last episode of that session before it was first kept."""
    uses: int
    """How often it came back."""
    last_used: datetime | None
    superseded_by: int | None
    """The newer fact that replaced it; None: it holds."""


@dataclass(frozen=True)
class Episode:
    """Something that was said."""

    id: int
    text: str
    at: datetime
    session: str
    role: str


@dataclass(frozen=True)
class Recalled:
    """A text that came back."""

    text: str
    at: datetime
    kind: MemoryKind
    score: float
    """Relevance times recency, 0 to 1."""
    session: str
    id: int
    """That of the fact or of the episode."""


def stamp(at: datetime) -> str:
    """A time as it stands in the file; one without a zone is taken as local."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    """The time that stands in the file. Raises `StorageError` when it is none."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise StorageError(
            f"the memory is damaged ({text!r} is no time); restore it from a copy or an export"
        ) from None


def fact_of(row: Sequence[Any]) -> Fact:
    """The fact of a row of `FACT_COLUMNS`."""
    number, text, at, session, episode, uses, last_used, superseded_by = row
    used = moment(last_used) if last_used else None
    return Fact(number, text, moment(at), session, episode, uses, used, superseded_by)


def episode_of(row: Sequence[Any]) -> Episode:
    """The episode of a row of `EPISODE_COLUMNS`."""
    return Episode(row[0], row[1], moment(row[2]), row[3], row[4])
