"""The folder of all runs: its tracking database, and locks against other processes."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from phases.errors import StorageError
from phases.storage import explain_os_errors, flocked

OUT = Path("checkpoints")
DATABASE = "mlflow.db"


@contextlib.contextmanager
def hold(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold a lock file (made when missing); the system frees it when the process dies, however it dies.

    Raises `StorageError` when another process has it and we do not `wait`.
    """
    with contextlib.ExitStack() as stack:
        try:
            with explain_os_errors(path.parent):
                stack.enter_context(flocked(path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)))
        except BlockingIOError:
            raise StorageError(
                f"{path.parent}: another forge is writing to it; wait for it, or choose another name with "
                "--set run=NAME"
            ) from None
        yield


def local_uri(out: Path) -> str:
    """Address of the tracking database in the folder of all runs."""
    return f"sqlite:///{out.resolve() / DATABASE}"
