"""One process at a time in a file that is read, changed and written again: a lock beside it.

    with exclusive(path):
        replace_text(path, text)                       # phases.storage

Readers take no lock: they see the old file or the new one, whole. The empty `<file>.lock` stays.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phases.storage import flocked


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait until nobody else changes this file. Raises OSError where the folder cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with flocked(path.with_name(f"{path.name}.lock")):
        yield
