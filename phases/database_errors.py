"""What an SQL database says, in the user's words.

    name = shown(url)                                  # without its password
    with explain_database_errors(name): ...

SQLAlchemy is imported when it is first needed: few commands have a database.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phases.errors import InputError, MissingDependency, StorageError

WAIT_SECONDS = 60.0
"""How long a writer waits for another one."""
_WANTED = "give a file, or a URL such as postgresql+psycopg://user@host/name"


def database_url(given: str | Path) -> str:
    """A URL of SQLAlchemy's; a path is a file of sqlite's."""
    return str(given) if "://" in str(given) else f"sqlite:///{given}"


def shown(url: str) -> str:
    """The URL as messages may show it. Raises `InputError` where it is none, without repeating what may be a secret."""
    import sqlalchemy

    try:
        return str(sqlalchemy.make_url(url).render_as_string(hide_password=True))
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InputError(f"the URL of the database cannot be read: {_WANTED}") from None


@contextmanager
def explain_database_errors(name: str) -> Iterator[None]:
    """Turn a driver that is missing and whatever SQLAlchemy raises into one line with a mend."""
    import sqlalchemy

    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingDependency(f"{name}: its driver is missing; pip install {error.name}") from None
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise InputError(f"{name}: {error}; {_WANTED}") from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise StorageError(f"{name}: {_mend(str(getattr(error, 'orig', None) or error))}") from None
    except OSError as error:
        raise StorageError(f"{name}: {error.strerror or error}; choose another place for it") from None


def _mend(said: str) -> str:
    first = said.strip().splitlines()[0]
    if "not a database" in first or "malformed" in first:
        return f"{first}; the file is damaged: restore it from a copy, or move it away and a new one is made"
    if "locked" in first:
        return f"{first}; another process has kept it for {WAIT_SECONDS:.0f} s: try again"
    if "no such" in first or "has no column" in first:
        return (
            f"{first}; the file is damaged or of another version: "
            "restore it from a copy, or move it away and a new one is made"
        )
    if "unable to open" in first:
        return f"{first}; it has to be a file in a folder that can be written to"
    return first
