"""`Night`: one run of a project, from its beginning to its verdict. A killed one is taken up again under its number.

    with project.begin_night() as night:
        folder = out / night.folder
        ...
        night.finish(verdict="promote", data_version=…, alpha_spent=0.01, usd=1.2, spending=…)

A block that ends otherwise, by an exception or without a verdict, leaves the night interrupted. One whose process was
killed is found when the next begins. Either is resumed: same number, same folder. A verdict, the money and the error
rate that was spent are written in one transaction, so that no crash lets a night be judged twice at the price of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql

from distillation.money.amount import exact
from distillation.project.database import nights, projects
from distillation.project.owner import Owner, this_process
from phases.errors import InputError

if TYPE_CHECKING:
    from distillation.project.project import Project

_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class NightRecord:
    """What is kept of a night."""

    number: int
    status: str
    """`running`, `interrupted`, `abandoned` (interrupted and not resumed) or `finished`."""
    started_at: str
    ended_at: str
    interruptions: int
    reason: str
    """Why it was interrupted, the last time."""
    data_version: str
    verdict: str
    report: str
    alpha_spent: float | None
    """Of the error rate over all nights; None: it had no test."""
    usd: float | None
    """What it cost; None: not known."""
    invested_usd: float | None
    """What the project had cost by its end; None: not known."""


@dataclass(frozen=True)
class Night:
    """The night that this process runs."""

    project: Project
    number: int
    resumed: bool
    """Whether it goes on where an interrupted one ended."""

    @property
    def folder(self) -> str:
        """Where its files belong, below the folder of all projects."""
        return f"{self.project.name}/night-{self.number:04d}"

    def finish(
        self,
        *,
        verdict: str,
        data_version: str = "",
        alpha_spent: float | None = None,
        usd: float | Decimal | None = None,
        invested_usd: float | Decimal | None = None,
        spending: str | None = None,
        report: str = "",
    ) -> None:
        """Write how it ended, and the project's new `spending` where a test was made."""
        values: dict[str, Any] = {
            "status": "finished",
            "ended_at": self.project.now(),
            "verdict": verdict,
            "report": report,
        }
        values |= {"data_version": data_version, "alpha_spent": alpha_spent}
        values |= {"spent_micro_usd": micro_usd(usd), "invested_micro_usd": micro_usd(invested_usd)}
        with self.project.database.writing() as connection:
            self._own(connection)
            connection.execute(nights.update().where(*self._here()).values(**values))
            if spending is not None:
                here = projects.c.id == self.project.id
                connection.execute(projects.update().where(here).values(spending=spending))

    def interrupt(self, reason: str) -> None:
        """Write that it ended without a verdict; the next night takes it up again."""
        with self.project.database.writing() as connection:
            self._own(connection)
            connection.execute(nights.update().where(*self._here()).values(_interrupted(self.project.now(), reason)))

    def __enter__(self) -> Night:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self.project.night(self.number).status == "running":
            said = str(error).strip().splitlines() if error else []
            self.interrupt(f"{kind.__name__}: {said[0] if said else ''}" if kind else "it ended without a verdict")

    def _here(self) -> tuple[sql.ColumnElement[bool], sql.ColumnElement[bool]]:
        return nights.c.project_id == self.project.id, nights.c.number == self.number

    def _own(self, connection: sql.Connection) -> None:
        row = connection.execute(sql.select(nights).where(*self._here()).with_for_update()).one()._mapping
        if row["status"] != "running" or _owner(row) != this_process():
            raise InputError(
                f"night {self.number} of project '{self.project.name}' is {row['status']} and no longer this process's"
            )


def begin(project: Project, resume: bool, take_over: bool) -> Night:
    """Take up the interrupted night, or begin the next. Raises InputError while one is running."""
    with project.database.writing() as connection:
        connection.execute(sql.select(projects.c.id).where(projects.c.id == project.id).with_for_update())
        query = nights.select().where(nights.c.project_id == project.id).order_by(nights.c.number.desc()).limit(1)
        row = connection.execute(query).one_or_none()
        last: Any = None if row is None else dict(row._mapping)
        if last is not None and last["status"] == "running":
            last |= _left(project, last, take_over)
            connection.execute(nights.update().where(nights.c.id == last["id"]).values(last))
        owner = this_process()
        owned = {"status": "running", "host": owner.host, "pid": owner.pid, "process_started": owner.started}
        if last is not None and last["status"] == "interrupted":
            if resume:
                connection.execute(nights.update().where(nights.c.id == last["id"]).values(owned | {"ended_at": ""}))
                return Night(project, last["number"], resumed=True)
            connection.execute(nights.update().where(nights.c.id == last["id"]).values(status="abandoned"))
        number = 1 if last is None else last["number"] + 1
        named = {"project_id": project.id, "number": number, "started_at": project.now()}
        connection.execute(nights.insert().values(owned | named))
    return Night(project, number, resumed=False)


def read_nights(project: Project) -> tuple[NightRecord, ...]:
    """All nights of a project, the first first."""
    query = nights.select().where(nights.c.project_id == project.id).order_by(nights.c.number)
    with project.database.reading() as connection:
        return tuple(night_record(row._mapping) for row in connection.execute(query))


def night_record(row: sql.RowMapping) -> NightRecord:
    """A row as it is handed out."""
    same = {name: row[name] for name in NightRecord.__slots__ if name in row}
    return NightRecord(**same, usd=dollars(row["spent_micro_usd"]), invested_usd=dollars(row["invested_micro_usd"]))


def micro_usd(usd: float | Decimal | None) -> int | None:
    """Millionths of a dollar, rounded."""
    return None if usd is None else round(exact(usd) * _MICRO)


def dollars(micro: int | None) -> float | None:
    """The inverse of `micro_usd`."""
    return None if micro is None else micro / _MICRO


def _left(project: Project, last: Any, take_over: bool) -> dict[str, Any]:
    """How a running night that nobody runs any more is marked."""
    owner, where = _owner(last), f"night {last['number']} of project '{project.name}'"
    state = owner.state()
    if state == "alive":
        raise InputError(f"{where} is running (process {owner.pid}, since {last['started_at']}); wait until it ends")
    if state == "elsewhere" and not take_over:
        raise InputError(
            f"{where} was begun on {owner.host} (process {owner.pid}), which cannot be seen from here; when you are "
            "sure that it has ended, take it over"
        )
    return {"interruptions": last["interruptions"] + 1, **_ended(project.now(), f"process {owner.pid} is gone")}


def _interrupted(now: str, reason: str) -> dict[str, Any]:
    return {"interruptions": nights.c.interruptions + 1, **_ended(now, reason)}


def _ended(now: str, reason: str) -> dict[str, Any]:
    return {"status": "interrupted", "ended_at": now, "reason": reason}


def _owner(row: Any) -> Owner:
    return Owner(row["host"], row["pid"], row["process_started"])
