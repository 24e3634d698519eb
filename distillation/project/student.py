"""`Student`: what a night made, whose it learnt from, and which champion it would replace; the lineage of a project."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sql

from distillation.project.database import champions, students
from distillation.project.night import dollars


@dataclass(frozen=True, slots=True)
class Student:
    """One student of a project."""

    digest: str
    night: int
    recorded_at: str
    path: str
    teachers: tuple[str, ...]
    """Digests, or addresses and models, of whom it learnt from."""
    champion_before: str
    """Digest of the champion when it was made; empty: there was none."""
    retention: float | None
    """Share of the teacher's quality that it keeps; None: not measured."""
    saved_usd_per_month: float | None
    """None: not known."""
    break_even_day: float | None
    """None: not known, or it never comes (`saved_usd_per_month` is then 0 or less)."""
    report: str


def read_students(connection: sql.Connection, project_id: int) -> tuple[Student, ...]:
    """All of a project, the oldest first."""
    query = students.select().where(students.c.project_id == project_id).order_by(students.c.id)
    return tuple(_student(row._mapping) for row in connection.execute(query))


def champion_digest(connection: sql.Connection, project_id: int) -> str:
    """Who is champion after all promotions and returns; empty: nobody."""
    query = sql.select(champions.c.action, champions.c.digest)
    rows = connection.execute(query.where(champions.c.project_id == project_id).order_by(champions.c.id))
    stack = standing((row.action, row.digest) for row in rows)
    return stack[-1] if stack else ""


def standing(actions: Iterable[tuple[str, str]]) -> list[str]:
    """The champions that a series of promotions and returns leaves, the present one last."""
    stack: list[str] = []
    for action, digest in actions:
        if action == "promoted":
            stack.append(digest)
        elif stack:
            stack.pop()
    return stack


def lineage(every: Sequence[Student], digest: str) -> tuple[Student, ...]:
    """A student, the champion that it followed, the one before that, and so on."""
    by_digest = {student.digest: student for student in every}
    line: list[Student] = []
    while digest in by_digest and by_digest[digest] not in line:
        line.append(by_digest[digest])
        digest = line[-1].champion_before
    return tuple(line)


def _student(row: sql.RowMapping) -> Student:
    same = {name: row[name] for name in Student.__slots__ if name in row and name != "teachers"}
    return Student(
        **same, teachers=tuple(json.loads(row["teachers"])), saved_usd_per_month=dollars(row["saved_micro_usd"])
    )
