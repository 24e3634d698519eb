"""`Project`: one agent that is distilled night after night: its stage, nights, students, champion and spent error rate.

    project = open_projects(out / "distillation.db").begin("support", teacher="big", teacher_digest=digest)
    with project.begin_night() as night:
        project.move("distilling", f"night {night.number}")
        ...
        project.record_student(student_digest, night.number, path, teachers=[digest], retention=0.97)
        project.promote(student_digest, "not worse than the teacher, better than the baseline")

Everything is in the database the moment a call returns; an object only knows which project it is.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import sqlalchemy as sql

from distillation.project import night as nights_of
from distillation.project.database import Database, champions, moves, projects, students
from distillation.project.night import Night, NightRecord, micro_usd
from distillation.project.stages import Stage, check_move
from distillation.project.student import Student, champion_digest, lineage, read_students
from phases.errors import InputError


@dataclass(frozen=True, slots=True)
class Move:
    """A step from one stage to the next."""

    at: str
    before: Stage
    after: Stage
    reason: str
    report: str


@dataclass(frozen=True)
class Project:
    """A project of a database."""

    database: Database
    id: int
    name: str
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def now(self) -> str:
        """ISO 8601 in UTC."""
        return self.clock().astimezone(UTC).isoformat(timespec="seconds")

    @property
    def stage(self) -> Stage:
        """How far it is."""
        return cast(Stage, self._column(projects.c.stage))

    @property
    def teacher(self) -> str:
        """Name of the teacher."""
        return self._column(projects.c.teacher)

    @property
    def teacher_digest(self) -> str:
        """Who that is: its checkpoint's digest, or an endpoint's address and model; empty: it was not opened yet."""
        return self._column(projects.c.teacher_digest)

    def identify_teacher(self, digest: str) -> None:
        """Write who the teacher is, once it has been opened."""
        with self.database.writing() as connection:
            connection.execute(projects.update().where(projects.c.id == self.id).values(teacher_digest=digest))

    @property
    def spending(self) -> str:
        """What `Night.finish` was given of the error rate that was spent over the nights; empty: nothing."""
        return self._column(projects.c.spending)

    def move(self, stage: Stage, reason: str, report: str = "") -> bool:
        """Go to another stage; False: it is there already. Raises InputError for a step that there is not."""
        with self.database.writing() as connection:
            before = cast(Stage, connection.execute(self._select(projects.c.stage).with_for_update()).scalar_one())
            if before == stage:
                return False
            check_move(self.name, before, stage)
            connection.execute(projects.update().where(projects.c.id == self.id).values(stage=stage))
            step = {"at": self.now(), "before": before, "after": stage, "reason": reason, "report": report}
            connection.execute(moves.insert().values(project_id=self.id, **step))
        return True

    def history(self) -> tuple[Move, ...]:
        """Every step, the first first."""
        query = moves.select().where(moves.c.project_id == self.id).order_by(moves.c.id)
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
        return tuple(Move(row.at, row.before, row.after, row.reason, row.report) for row in rows)

    def begin_night(self, *, resume: bool = True, take_over: bool = False) -> Night:
        """Take up the night that was interrupted, or begin the next one.

        `resume` False: an interrupted one is left as it is. `take_over`: one that was begun on another machine counts
        as interrupted. Raises InputError while one is running, and for an archived project.
        """
        if self.stage == "archived":
            raise InputError(f"project '{self.name}' is archived; begin a new one")
        return nights_of.begin(self, resume, take_over)

    def nights(self) -> tuple[NightRecord, ...]:
        """All nights, the first first."""
        return nights_of.read_nights(self)

    def night(self, number: int) -> NightRecord:
        """The night of a number."""
        return self.nights()[number - 1]

    def data_before(self, number: int) -> str:
        """Version of the data of the last finished night before that one; empty: there is none."""
        before = [one.data_version for one in self.nights() if one.number < number and one.status == "finished"]
        return before[-1] if before else ""

    def record_student(
        self,
        digest: str,
        night: int,
        path: str,
        *,
        teachers: Sequence[str],
        retention: float | None = None,
        saved_usd_per_month: float | None = None,
        break_even_day: float | None = None,
        report: str = "",
    ) -> Student:
        """Keep what a night made. The same digest again (a resumed night) is brought up to date."""
        values = {"night": night, "path": path, "teachers": json.dumps(list(teachers)), "retention": retention}
        values |= {"saved_micro_usd": micro_usd(saved_usd_per_month), "break_even_day": break_even_day}
        values |= {"report": report}
        here = (students.c.project_id == self.id, students.c.digest == digest)
        with self.database.writing() as connection:
            connection.execute(self._select(projects.c.id).with_for_update())
            if connection.execute(students.update().where(*here).values(**values)).rowcount == 0:
                before = champion_digest(connection, self.id)
                made = {"project_id": self.id, "digest": digest, "recorded_at": self.now(), "champion_before": before}
                connection.execute(students.insert().values(**made, **values))
            return next(s for s in read_students(connection, self.id) if s.digest == digest)

    def students(self) -> tuple[Student, ...]:
        """All students, the oldest first."""
        with self.database.reading() as connection:
            return read_students(connection, self.id)

    @property
    def champion(self) -> Student | None:
        """The student that is in use; None: the teacher still answers."""
        with self.database.reading() as connection:
            digest = champion_digest(connection, self.id)
            return next((s for s in read_students(connection, self.id) if s.digest == digest), None)

    def lineage(self) -> tuple[Student, ...]:
        """The champion, the one that it followed, and so on; each with its teachers."""
        champion = self.champion
        return () if champion is None else lineage(self.students(), champion.digest)

    def promote(self, digest: str, reason: str) -> None:
        """Make a recorded student the champion; it is no step if it is that already."""
        with self.database.writing() as connection:
            connection.execute(self._select(projects.c.id).with_for_update())
            if digest not in {student.digest for student in read_students(connection, self.id)}:
                raise InputError(f"project '{self.name}' has no student '{digest}'; record it before it is promoted")
            if champion_digest(connection, self.id) != digest:
                self._crown(connection, "promoted", digest, reason)

    def roll_back(self, reason: str) -> Student | None:
        """Go back to the champion before; None: to the teacher. Raises InputError where there is no champion."""
        with self.database.writing() as connection:
            connection.execute(self._select(projects.c.id).with_for_update())
            digest = champion_digest(connection, self.id)
            if not digest:
                raise InputError(f"project '{self.name}' has no champion to roll back from")
            self._crown(connection, "rolled back", digest, reason)
        return self.champion

    def _crown(self, connection: sql.Connection, action: str, digest: str, reason: str) -> None:
        row = {"project_id": self.id, "at": self.now(), "action": action, "digest": digest, "reason": reason}
        connection.execute(champions.insert().values(**row))

    def _select(self, column: "sql.Column[Any]") -> "sql.Select[tuple[Any]]":
        return sql.select(column).where(projects.c.id == self.id)

    def _column(self, column: "sql.Column[str]") -> str:
        with self.database.reading() as connection:
            return str(connection.execute(self._select(column)).scalar_one())
