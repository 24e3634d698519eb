"""What is to be sent to a server that may be away: in order, kept while it is, sent when it is back.

A server that is away must not cost the run much. Before anything is sent the server is asked whether it is there,
which takes milliseconds and gives up soon; after a failure nothing is tried for 15 s, or for 20 times what the failed
attempt took: a server that hangs costs at most a twentieth of the run's time.
"""

import re
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from flows.console import say
from phases.errors import ForgeError

T = TypeVar("T")
PAUSE_SECONDS, PAUSE_FACTOR = 15.0, 20


class Outbox:
    """Operations that wait for the server. Each may be done twice: when its answer was lost, or it was cut off."""

    def __init__(
        self, ask: Callable[[], object], refused: Callable[[Exception], bool], returned: Callable[[], object]
    ) -> None:
        """`ask` raises quickly when the server is away; what is `refused` need not wait; `returned` is done at the end
        of an absence."""
        self._ask, self._refused, self._returned = ask, refused, returned
        self._waiting: deque[Callable[[], object]] = deque()
        self._next_attempt = 0.0
        self._complaints: set[str] = set()
        self.away = False

    def put(self, operation: Callable[[], object]) -> None:
        """Do it after all that waits: now, or when the server is back."""
        self._waiting.append(operation)
        self.send()

    def send(self, now: bool = False) -> bool:
        """Do what waits; whether nothing is left. While the server is away it is tried now and then, or `now`."""
        began = time.monotonic()
        if self.away and not now and began < self._next_attempt:
            return False
        try:
            self._ask()
            while self._waiting:
                self._do(self._waiting[0])
                self._waiting.popleft()
            if self.away:
                self._returned()
        except Exception as error:  # whatever is wrong with the server, the run is worth more
            self._stop(error, began)
            return False
        if self.away:
            self.away = False
            say("tracking resumed")
        return True

    def now(self, operation: Callable[[], T]) -> T | None:
        """The operation's result, done at once after all that waits; None, and no more of it, when that fails.

        A `ForgeError` is the operation's own: it is passed on.
        """
        began = time.monotonic()
        try:
            return self._do(operation, (ForgeError,)) if self.send(now=True) else None
        except ForgeError:
            raise
        except Exception as error:
            self._stop(error, began)
            return None

    def _do(self, operation: Callable[[], T], passed: tuple[type[Exception], ...] = ()) -> T | None:
        try:
            return operation()
        except Exception as error:
            if isinstance(error, passed) or not self._refused(error):
                raise
            self._complain(f"tracking: left out: {reason(error)}")
            return None

    def _stop(self, error: Exception, began: float) -> None:
        if not self.away:
            say(f"tracking stopped, the run goes on without it: {reason(error)}")
        now = time.monotonic()
        self.away, self._next_attempt = True, now + max(PAUSE_SECONDS, PAUSE_FACTOR * (now - began))

    def _complain(self, text: str) -> None:
        if text not in self._complaints:
            say(text)
        self._complaints.add(text)


def reason(error: Exception) -> str:
    """What an error says, in one short line, without the password of an address."""
    return re.sub(r"//[^/\s]*@", "//", " ".join(str(error).split()))[:200]
