"""The database that projects are kept in: sqlite in a file, or another one by its SQLAlchemy URL.

    database = Database(out / "distillation.db")
    with database.writing() as connection: ...      # one writer at a time; all of it or nothing
    with database.reading() as connection: ...

Its tables carry a version. A file that is damaged, of another version or somebody else's is refused with what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.pool import NullPool

from phases.database_errors import WAIT_SECONDS, database_url, explain_database_errors, shown
from phases.errors import InputError

VERSION = 1
_TABLES = sql.MetaData()


def _project() -> "sql.Column[int]":
    return sql.Column("project_id", sql.ForeignKey("distillation_projects.id"), nullable=False)


def _text(name: str) -> "sql.Column[str]":
    return sql.Column(name, sql.Text, nullable=False, server_default="")


versions = sql.Table("distillation_version", _TABLES, sql.Column("version", sql.Integer, nullable=False))
projects = sql.Table(
    "distillation_projects",
    _TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("name", sql.String(200), nullable=False, unique=True),
    _text("teacher"),
    _text("teacher_digest"),
    _text("stage"),
    _text("spending"),
    _text("created_at"),
)
moves = sql.Table(
    "distillation_moves",
    _TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    _project(),
    *(_text(name) for name in ("at", "before", "after", "reason", "report")),
)
nights = sql.Table(
    "distillation_nights",
    _TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    _project(),
    sql.Column("number", sql.Integer, nullable=False),
    *(_text(name) for name in ("status", "started_at", "ended_at", "host", "reason")),
    sql.Column("pid", sql.Integer, nullable=False),
    sql.Column("process_started", sql.Float, nullable=False),
    sql.Column("interruptions", sql.Integer, nullable=False, server_default="0"),
    *(_text(name) for name in ("data_version", "verdict", "report")),
    sql.Column("alpha_spent", sql.Float),
    sql.Column("spent_micro_usd", sql.BigInteger),
    sql.Column("invested_micro_usd", sql.BigInteger),
    sql.UniqueConstraint("project_id", "number"),
)
students = sql.Table(
    "distillation_students",
    _TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    _project(),
    sql.Column("digest", sql.String(200), nullable=False),
    sql.Column("night", sql.Integer, nullable=False),
    *(_text(name) for name in ("recorded_at", "path", "teachers", "champion_before", "report")),
    sql.Column("retention", sql.Float),
    sql.Column("saved_micro_usd", sql.BigInteger),
    sql.Column("break_even_day", sql.Float),
    sql.UniqueConstraint("project_id", "digest"),
)
champions = sql.Table(
    "distillation_champions",
    _TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    _project(),
    *(_text(name) for name in ("at", "action", "digest", "reason")),
)


class Database:
    """Connections to it; the tables are made when it is first opened."""

    def __init__(self, url: str | Path) -> None:
        """`url`: of SQLAlchemy, or a file of sqlite's."""
        self.url = database_url(url)
        self.name = shown(self.url)
        with explain_database_errors(self.name):
            parsed = sql.make_url(self.url)
            self._sqlite = parsed.get_backend_name() == "sqlite"
            if self._sqlite:
                _make_folder(parsed.database)
            self._engine = self._open(parsed)
            self._prepare()

    @contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """A transaction that no other writer is in at the same time (on other servers: lock the project's row)."""
        with explain_database_errors(self.name), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sql.Connection]:
        """A consistent look."""
        with explain_database_errors(self.name), self._engine.execution_options(reading=True).connect() as connection:
            yield connection

    def _open(self, url: sql.URL) -> sql.Engine:
        # No pool: connections may not cross a fork, and a night needs few.
        if not self._sqlite:
            return sql.create_engine(url, poolclass=NullPool)
        engine = sql.create_engine(url, poolclass=NullPool, connect_args={"timeout": WAIT_SECONDS})

        @sql.event.listens_for(engine, "connect")
        def _(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver would begin too late: after the first read

        @sql.event.listens_for(engine, "begin")
        def _(connection: sql.Connection) -> None:
            reads = connection.get_execution_options().get("reading", False)
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

        return engine

    def _prepare(self) -> None:
        """Make the tables where there are none, or look whether they are ours and of this version."""
        with self.reading() as connection:
            made = self._look(connection)
        if made:
            return
        with self._engine.begin() as connection:
            if self._look(connection):  # another process was faster
                return
            for table in _TABLES.sorted_tables:
                connection.execute(sql.schema.CreateTable(table, if_not_exists=True))
            connection.execute(versions.insert().values(version=VERSION))

    def _look(self, connection: sql.Connection) -> bool:
        names = set(sql.inspect(connection).get_table_names())
        if versions.name not in names:
            if self._sqlite and names:
                raise InputError(
                    f"{self.name}: belongs to something else (it has the table '{min(names)}'); name another file"
                )
            return False
        found = connection.execute(sql.select(versions.c.version)).scalar()
        if found != VERSION:
            raise InputError(
                f"{self.name}: its tables are of version {found}, this program's of {VERSION}; "
                "use the program that made it, or move the file away and a new one is made"
            )
        return True


def _make_folder(file: str | None) -> None:
    if file in (None, "", ":memory:"):
        raise InputError("projects have to outlive the process: give a file instead of a database in memory")
    Path(str(file)).parent.mkdir(parents=True, exist_ok=True)
