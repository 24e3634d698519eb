"""How fast a stranger's service is asked: rate limits, waits after failures, and when to stop trying.

Everything takes the time as an argument, so that it is exact and testable; `endpoint.py` has the clock.

    bucket = TokenBucket(per_minute=600)
    time.sleep(bucket.reserve(1, time.monotonic()))      # a request may go

Buckets are the generic cell rate algorithm (ITU-T I.371); waits are exponential with full jitter (Brooker, "Exponential
Backoff and Jitter", 2015); the breaker is Nygard's ("Release It!", 2007).
"""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

BURST_SECONDS = 5.0
"""Of its rate that a bucket holds: short bursts pass, and no minute has more than 65 seconds' worth."""


class TokenBucket:
    """So many units a minute. In any t seconds no more than `capacity` + t · rate begin."""

    def __init__(self, per_minute: float) -> None:
        self.per_second = per_minute / 60
        self.capacity = max(1.0, BURST_SECONDS * self.per_second)
        self._level, self._at = self.capacity, float("-inf")

    def reserve(self, amount: float, now: float) -> float:
        """Take `amount`, and the seconds to wait before using it. Whoever reserves first goes first."""
        if self._at > float("-inf"):
            self._level = min(self.capacity, self._level + (now - self._at) * self.per_second)
        self._at = now
        self._level -= amount
        return max(0.0, -self._level / self.per_second)

    def give_back(self, amount: float) -> None:
        """What was reserved and not needed."""
        self._level = min(self.capacity, self._level + amount)


Admission = Literal["go", "probe", "wait", "down"]


@dataclass
class Breaker:
    """Stops asking a service that fails: opens after `failures` in a row, lets one probe through after each pause."""

    failures: int
    pause_seconds: float
    probes: int
    """Failed probes after which the service counts as down for good."""
    _in_a_row: int = field(default=0, init=False)
    _failed_probes: int = field(default=0, init=False)
    _open_until: float | None = field(default=None, init=False)
    _probing: bool = field(default=False, init=False)

    def admit(self, now: float) -> Admission:
        """Whether one may ask now. Who is told "probe" has to say `worked`, `failed` or `left` afterwards."""
        if self._failed_probes >= self.probes:
            return "down"
        if self._open_until is None:
            return "go"
        if self._probing or now < self._open_until:
            return "wait"
        self._probing = True
        return "probe"

    def worked(self) -> None:
        """The service has answered."""
        self._in_a_row = self._failed_probes = 0
        self._open_until, self._probing = None, False

    def failed(self, now: float, admission: Admission) -> None:
        """The service could not be reached, or is broken."""
        self._in_a_row += 1
        if admission == "probe":
            self._failed_probes += 1
            self._open_until, self._probing = now + self.pause_seconds, False
        elif self._open_until is None and self._in_a_row >= self.failures:
            self._open_until = now + self.pause_seconds

    def left(self, admission: Admission) -> None:
        """Who was admitted has gone without an outcome."""
        if admission == "probe":
            self._probing = False


def backoff_seconds(attempt: int, base: float, longest: float, draw: random.Random) -> float:
    """The wait after the failed attempt of that number (from 0): uniform between 0 and what doubles each time."""
    return draw.uniform(0.0, min(longest, base * 2.0 ** min(attempt, 60)))


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """What a `Retry-After` header asks for (RFC 9110, 10.2.3): seconds or a date; None where it says neither."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
