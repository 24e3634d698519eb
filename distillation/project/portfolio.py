"""All projects on one page: what `forge projects` shows.

    projects = open_projects(out / "distillation.db")
    portfolio = projects.portfolio()
    portfolio.rows[0].saved_usd_per_month; portfolio.totals.saved_usd_per_month

What a project saves is what its champion does; what was invested is as of its last finished night. A sum says how many
projects it lacks: their figure is not known.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from distillation.project.database import Database, projects
from distillation.project.project import Project
from distillation.project.stages import FIRST, Stage
from phases.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Row:
    """A project; None: there is none, or it is not known."""

    name: str
    stage: Stage
    teacher: str
    champion: str | None
    """Digest."""
    retention: float | None
    saved_usd_per_month: float | None
    invested_usd: float | None
    break_even_day: float | None
    """Days after the champion answers; None as well where it never comes."""
    last_night: int | None
    last_status: str | None
    last_verdict: str | None
    last_started_at: str | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Over the projects that are not archived."""

    projects: int
    champions: int
    saved_usd_per_month: float
    saved_unknown: int
    """Champions whose saving is not known, and not in the sum."""
    invested_usd: float
    invested_unknown: int
    """Projects with nights whose investment is not known, and not in the sum."""


@dataclass(frozen=True, slots=True)
class Portfolio:
    """All projects by name, and their sums."""

    rows: tuple[Row, ...]
    totals: Totals

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"projects": [asdict(row) for row in self.rows], "totals": asdict(self.totals)}


class Projects:
    """The projects of a database."""

    def __init__(self, url: str | Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """`url`: a file of sqlite's, or a URL of SQLAlchemy. Raises InputError for one that is damaged or not ours."""
        self.database, self._clock = Database(url), clock

    def begin(self, name: str, *, teacher: str, teacher_digest: str = "") -> Project:
        """The project of that name, made where there is none; its teacher is from now on this one."""
        if not _NAME.fullmatch(name) or len(name) > 100:
            raise InputError(f"project name '{name}': up to 100 letters, digits, dots, dashes and underscores")
        taught = {"teacher": teacher, "teacher_digest": teacher_digest}
        with self.database.writing() as connection:
            here = projects.c.name == name
            if connection.execute(projects.update().where(here).values(**taught)).rowcount == 0:
                created = self._clock().astimezone(UTC).isoformat(timespec="seconds")
                connection.execute(projects.insert().values(name=name, stage=FIRST, created_at=created, **taught))
            number = connection.execute(sql.select(projects.c.id).where(here)).scalar_one()
        return Project(self.database, number, name, self._clock)

    def open(self, name: str) -> Project:
        """The project of that name. Raises InputError with the nearest names."""
        every = {project.name: project for project in self.every()}
        if name not in every:
            near = get_close_matches(name, every, n=3, cutoff=0.5)
            known = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(every) or 'none yet'}"
            raise InputError(f"no project '{name}' in {self.database.name}; {known}")
        return every[name]

    def every(self) -> tuple[Project, ...]:
        """All, by name."""
        with self.database.reading() as connection:
            rows = connection.execute(sql.select(projects.c.id, projects.c.name).order_by(projects.c.name)).all()
        return tuple(Project(self.database, row.id, row.name, self._clock) for row in rows)

    def portfolio(self) -> Portfolio:
        """Every project with its champion, money and last night."""
        rows = tuple(_row(project) for project in self.every())
        return Portfolio(rows, _totals(row for row in rows if row.stage != "archived"))


def open_projects(url: str | Path) -> Projects:
    """Open or make a database of projects."""
    return Projects(url)


def _row(project: Project) -> Row:
    champion, nights = project.champion, project.nights()
    finished = [night for night in nights if night.status == "finished"]
    last = nights[-1] if nights else None
    return Row(
        name=project.name,
        stage=project.stage,
        teacher=project.teacher,
        champion=champion.digest if champion else None,
        retention=champion.retention if champion else None,
        saved_usd_per_month=champion.saved_usd_per_month if champion else None,
        invested_usd=finished[-1].invested_usd if finished else None,
        break_even_day=champion.break_even_day if champion else None,
        last_night=last.number if last else None,
        last_status=last.status if last else None,
        last_verdict=last.verdict if last else None,
        last_started_at=last.started_at if last else None,
    )


def _totals(rows: Iterable[Row]) -> Totals:
    rows = list(rows)
    crowned = [row for row in rows if row.champion]
    began = [row for row in rows if row.last_night is not None]
    return Totals(
        projects=len(rows),
        champions=len(crowned),
        saved_usd_per_month=sum(row.saved_usd_per_month or 0.0 for row in crowned),
        saved_unknown=sum(row.saved_usd_per_month is None for row in crowned),
        invested_usd=sum(row.invested_usd or 0.0 for row in began),
        invested_unknown=sum(row.invested_usd is None for row in began),
    )
