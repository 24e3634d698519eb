"""The run's progress as a Prefect artifact: a bar in the UI that moves at most once a second."""

import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

SECONDS = 1.0
"""An update costs 18 to 42 ms."""


class Progress:
    """Steps done out of `total`."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._updated = total, 0, time.monotonic()
        made = create_progress_artifact(progress=0.0, key="forge-progress", description="Steps of the run")
        assert isinstance(made, UUID)  # the same function returns a coroutine in asynchronous flows
        self._id = made

    def advance(self, steps: int = 1) -> None:
        """So many more steps are done; the last one is always shown."""
        self._done += steps
        now = time.monotonic()
        if self._done >= self._total or now - self._updated >= SECONDS:
            self._updated = now
            update_progress_artifact(self._id, progress=min(100.0, 100 * self._done / self._total))
