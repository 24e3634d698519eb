"""How a memory forgets: on request, by age, and for want of room.

    removed = forget(db, ids=[3], query=None, before=None)

What goes takes its traces along: with a fact go those that it replaced and the episodes that say them word for word,
and the indexes are merged, since SQLite's only mark the words of a deleted text as gone. All of it runs in the caller's
transaction, with `secure_delete` on, so that freed pages are zeros.
"""

import heapq
import math
import sqlite3
from collections.abc import Iterable, Sequence

from phases.agent import wording


def forget(db: sqlite3.Connection, ids: Sequence[int] | None, query: str | None, before: str | None) -> int:
    """Remove what meets every condition that is given (`Memory.forget`); how many facts and episodes."""
    facts = _matching(db, "facts", query, before)
    if ids is not None:
        facts &= set(ids)
    gone = _with_replaced(db, facts)
    episodes = _matching(db, "episodes", query, before) if ids is None else set()
    for number in sorted(gone):
        episodes |= _saying(db, number)
    return settled(db, _remove(db, "facts", gone) + _remove(db, "episodes", episodes))


def drop_old_episodes(db: sqlite3.Connection, oldest: str) -> int:
    """Remove the episodes before a time; how many."""
    return db.execute("DELETE FROM episodes WHERE at < ?", (oldest,)).rowcount


def make_room(db: sqlite3.Connection, capacity: int, half_life_days: float, newest: int | None = None) -> int:
    """Remove facts until `capacity` are left; how many. `newest` stays.

    Replaced facts go first, oldest first; then those whose (1 + uses) × 0.5 ** (days unused / half-life) is least.
    """
    (count,) = db.execute("SELECT count(*) FROM facts").fetchone()
    if count <= capacity:
        return 0
    rows = db.execute(
        "SELECT superseded_by IS NULL, uses, julianday(coalesce(last_used, at)), id FROM facts WHERE id IS NOT ?",
        (newest,),
    )
    # The logarithm orders them in the same way, and needs no time of now.
    worth = ((holds, holds * math.log2(1 + uses) * half_life_days + day, number) for holds, uses, day, number in rows)
    return _remove(db, "facts", [number for *_, number in heapq.nsmallest(count - capacity, worth)])


def settled(db: sqlite3.Connection, removed: int) -> int:
    """Merge the indexes if anything was removed, and hand on how many."""
    for table in ("facts", "episodes") if removed else ():
        db.execute(f"INSERT INTO {table}_index ({table}_index) VALUES ('optimize')")
    return removed


def _matching(db: sqlite3.Connection, table: str, query: str | None, before: str | None) -> set[int]:
    """Numbers of the rows that have every word of the query and are older; a query without words matches none."""
    found = {number for (number,) in db.execute(f"SELECT id FROM {table} WHERE ?1 IS NULL OR at < ?1", (before,))}
    if query is None:
        return found
    wanted = wording.query_words(wording.clean(query))
    return found & _indexed(db, table, wording.all_of(wanted)) if wanted else set()


def _indexed(db: sqlite3.Connection, table: str, match: str) -> set[int]:
    rows = db.execute(f"SELECT rowid FROM {table}_index WHERE {table}_index MATCH ?", (match,))
    return {number for (number,) in rows}


def _with_replaced(db: sqlite3.Connection, facts: Iterable[int]) -> set[int]:
    """The facts and all that they replaced, directly or not."""
    found: set[int] = set()
    to_look_at = set(facts)
    while to_look_at:
        number = to_look_at.pop()
        found.add(number)
        replaced = db.execute("SELECT id FROM facts WHERE superseded_by = ?", (number,))
        to_look_at |= {older for (older,) in replaced} - found
    return found


def _saying(db: sqlite3.Connection, fact: int) -> set[int]:
    """Episodes that say a fact word for word."""
    (text,) = db.execute("SELECT text FROM facts WHERE id = ?", (fact,)).fetchone()
    said = wording.phrase(text)
    return _indexed(db, "episodes", said) if said else set()


def _remove(db: sqlite3.Connection, table: str, numbers: Iterable[int]) -> int:
    gone = [(number,) for number in numbers]
    db.executemany(f"DELETE FROM {table} WHERE id = ?", gone)
    return len(gone)
