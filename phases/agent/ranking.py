"""Which texts of a memory answer a query: relevance times recency.

    relevance = bm25 / bm25 of the best text of its kind × (1/2 where a word of the query is missing)
    recency   = 0.5 ** (age / half-life), for facts never less than a floor

so a missing word weighs as much as a half-life of age. BM25 (Robertson & Zaragoza 2009) is that of SQLite's full-text
search, over words without endings and accents. Its size depends on how many texts there are, hence the quotient.

Two bounds keep it quick. Words in thousands of texts select nothing beside rarer ones, and where they are all there is
the newest `SELECTED` texts are ranked. Recency then chooses among the `CANDIDATES` most relevant of each kind.

    ranked = rank(db, "fact", ["boat"], Recency(now, timedelta(days=30), floor=0.25))
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from phases.agent import wording
from phases.agent.memory_records import MemoryKind, Recalled, moment

CANDIDATES = 100
SELECTED = 2000
_HOLDS = "AND rowid NOT IN (SELECT id FROM facts WHERE superseded_by IS NOT NULL)"


@dataclass(frozen=True)
class Recency:
    """How much a text counts by its age."""

    now: datetime
    half_life: timedelta
    floor: float
    """Of facts."""

    def of(self, at: datetime, kind: MemoryKind) -> float:
        """0 to 1; a time yet to come counts as now."""
        faded = float(0.5 ** (max(self.now - at, timedelta()) / self.half_life))
        return max(faded, self.floor) if kind == "fact" else faded


def rank(db: sqlite3.Connection, kind: MemoryKind, wanted: list[str], recency: Recency) -> Iterator[Recalled]:
    """The most relevant texts of a kind with their scores, most relevant first."""
    table = f"{kind}s"
    index = f"{table}_index"
    selecting = _selecting(db, index, wanted)
    if not selecting:
        return
    newest = f"{_HOLDS if kind == 'fact' else ''} ORDER BY rowid DESC LIMIT {SELECTED}"
    whole = f"SELECT rowid FROM {index} WHERE {index} MATCH ? {newest}"
    rows = db.execute(
        f"SELECT {table}.id, text, at, session, bm25, place IN ({whole}) FROM "
        f"(SELECT rowid AS place, -bm25({index}) AS bm25 FROM {index} WHERE {index} MATCH ? {newest}) "
        f"JOIN {table} ON {table}.id = place ORDER BY bm25 DESC, place DESC LIMIT {CANDIDATES}",
        (wording.all_of(wanted), wording.any_of(selecting)),
    ).fetchall()
    for number, text, at, session, bm25, has_all in rows:
        relevance = bm25 / rows[0][4] * (1.0 if has_all else 0.5)
        told = moment(at)
        yield Recalled(text, told, kind, relevance * recency.of(told, kind), session, number)


def _selecting(db: sqlite3.Connection, index: str, wanted: Sequence[str]) -> list[str]:
    """The rarest of the words that are there at all, as many as stand in `SELECTED` texts together, one at least."""
    count = f"SELECT count(*) FROM {index} WHERE {index} MATCH ?"
    counts = sorted((db.execute(count, (f'"{word}"',)).fetchone()[0], word) for word in wanted)
    chosen: list[str] = []
    texts = 0
    for number, word in counts:
        texts += number
        if number and (not chosen or texts <= SELECTED):
            chosen.append(word)
    return chosen


def best_of(found: Sequence[Recalled], limit: int) -> list[Recalled]:
    """The best, best first; of equal scores facts come first, then what is newer. Nothing is said twice.

    A fact and the episode that told it are often the same words: the better one stands for both.
    """
    ordered = sorted(found, key=lambda one: (-one.score, one.kind == "episode", -one.at.timestamp(), -one.id))
    first: dict[str, Recalled] = {}
    for one in ordered:
        first.setdefault(wording.fact_key(one.text), one)
    return list(first.values())[: max(limit, 0)]
