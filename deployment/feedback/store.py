"""Where outcomes are kept: a SQL database, sqlite in a file by default, PostgreSQL or another one by its URL.

    store = OutcomeStore()                                     # checkpoints/outcomes.sqlite
    store = OutcomeStore("postgresql+psycopg://user@host/db")  # needs that driver
    store.add(Outcome(...)); store.read(system="…")

Several processes may write at once: they wait for each other, up to `WAIT_SECONDS`. What goes wrong with the database
becomes one line that says what to do.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployment.feedback.outcome import Outcome
from phases.database_errors import WAIT_SECONDS, database_url, explain_database_errors, shown
from phases.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy import Engine, Table

DEFAULT_FILE = Path("checkpoints/outcomes.sqlite")
_NAMED = 10
"""Systems that an error lists."""


class OutcomeStore:
    """Outcomes in a database; file and table are made when something is to be kept, never by reading."""

    def __init__(self, url: str | Path | None = None) -> None:
        """`url`: of SQLAlchemy, or a file of sqlite's; None: `checkpoints/outcomes.sqlite`."""
        self.url = database_url(DEFAULT_FILE if url is None else url)

    def add(self, *outcomes: Outcome) -> None:
        """Keep them, all or none. Raises StorageError where they cannot be written."""
        rows = [{"system": outcome.system, **outcome.model_dump()} for outcome in outcomes]
        for row in rows:
            row["observed_at"] = row["observed_at"].isoformat()
        if rows:
            with explain_database_errors(self._name), self._made.begin() as connection:
                connection.execute(self._table.insert(), rows)

    @property
    def exists(self) -> bool:
        """Whether there is something to read. Raises StorageError for what is no database."""
        import sqlalchemy

        if self._file is not None and not self._file.exists():
            return False
        with explain_database_errors(self._name):
            return sqlalchemy.inspect(self._engine).has_table(self._table.name)

    def read(self, system: str | None = None, since: datetime | None = None) -> list[Outcome]:
        """Outcomes in the order in which they were observed, of one system or of all; none where nothing is kept yet.

        Raises InputError for a system that was not measured where others were.
        """
        if not self.exists:
            return []
        query = self._table.select().order_by(self._table.c.observed_at, self._table.c.id)
        if system is not None:
            query = query.where(self._table.c.system == system)
        with explain_database_errors(self._name), self._engine.connect() as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]
        if system is not None and not rows and (known := self.systems()):
            near = [name for name in known if system.lower() in name.lower()] or known
            more = f" and {len(near) - _NAMED} more" if len(near) > _NAMED else ""
            raise InputError(f"{self._name}: no outcomes of {system!r}; there are {', '.join(near[:_NAMED])}{more}")
        outcomes = [Outcome.parse({k: v for k, v in r.items() if k not in ("id", "system")}, self._name) for r in rows]
        return [outcome for outcome in outcomes if since is None or outcome.observed_at >= since]

    def observed_at(self, system: str, measurement: str) -> datetime | None:
        """When this file's loads were kept for the system; None: they were not.

        It is asked before they are kept, and raises StorageError where they could not be.
        """
        import sqlalchemy

        columns = self._table.c
        query = sqlalchemy.select(columns.observed_at)
        query = query.where(columns.system == system, columns.measurement == measurement).limit(1)
        with explain_database_errors(self._name), self._made.connect() as connection:
            found = connection.execute(query).scalar()
        return None if found is None else datetime.fromisoformat(found)

    def systems(self) -> list[str]:
        """All systems that were measured, by name."""
        import sqlalchemy

        if not self.exists:
            return []
        query = sqlalchemy.select(self._table.c.system).distinct().order_by(self._table.c.system)
        with explain_database_errors(self._name), self._engine.connect() as connection:
            return [str(row[0]) for row in connection.execute(query)]

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()

    @property
    def _name(self) -> str:
        return shown(self.url)

    @property
    def _file(self) -> Path | None:
        """Of sqlite; None: it is in memory, or another database."""
        import sqlalchemy

        with explain_database_errors(self._name):
            url = sqlalchemy.make_url(self.url)
        on_disk = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
        return Path(str(url.database)) if on_disk else None

    @cached_property
    def _table(self) -> Table:
        import sqlalchemy

        kinds: dict[Any, Any] = {str: sqlalchemy.Text, int: sqlalchemy.Integer}
        columns = [
            sqlalchemy.Column(name, kinds.get(info.annotation, sqlalchemy.Float))
            for name, info in Outcome.model_fields.items()
            if name != "observed_at"
        ]
        return sqlalchemy.Table(
            "outcomes",
            sqlalchemy.MetaData(),
            sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
            sqlalchemy.Column("system", sqlalchemy.Text, nullable=False),
            sqlalchemy.Column("observed_at", sqlalchemy.Text, nullable=False),  # ISO 8601 in UTC: sorts as time does
            *columns,
        )

    @cached_property
    def _engine(self) -> Engine:
        """Connects when it is first used."""
        import sqlalchemy

        with explain_database_errors(self._name):
            url = sqlalchemy.make_url(self.url)
            sqlite = url.get_backend_name() == "sqlite"
            return sqlalchemy.create_engine(url, connect_args={"timeout": WAIT_SECONDS} if sqlite else {})

    @cached_property
    def _made(self) -> Engine:
        """With its file and table."""
        import sqlalchemy

        with explain_database_errors(self._name):
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._engine.begin() as connection:  # not `create_all`: two processes may be the first at once
                connection.execute(sqlalchemy.schema.CreateTable(self._table, if_not_exists=True))
        return self._engine
