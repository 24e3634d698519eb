"""`Budget`: what a night may spend, counted as it goes; it is asked before each step, so that it is never exceeded.

    budget = Budget(usd=2.0, teacher_calls=500)
    if budget.allows(estimate):            # a conservative price of the next request; None: the price is not known
        budget.spend(actual)
    else:
        print(budget.refusal(estimate))    # one line that says which limit, and how much of it is left

A limit of None is none; 0 is one: nothing may be spent, and the night ends with what is in the store. Where dollars are
limited, a step whose price is not known is refused, and so is everything after a step that turned out to have no price.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from pydantic import Field

from distillation.money.amount import exact
from phases.strict import StrictModel


class BudgetConfig(StrictModel):
    """What a night may spend; empty is no limit, 0 is nothing."""

    usd: float | None = Field(default=None, ge=0)
    """Dollars for teachers and judges."""
    seconds: float | None = Field(default=None, ge=0)
    """Wall-clock time of an attempt: no question is asked, no trial of a search and no training begins after it."""
    teacher_calls: int | None = Field(default=None, ge=0)
    """Requests to teachers that the store could not answer."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used up so far."""

    usd: Decimal = Decimal(0)
    """Of the steps whose price is known."""
    seconds: float = 0.0
    calls: int = 0
    unpriced: int = 0
    """Steps whose price is not known: where it is above 0, `usd` is a lower bound."""


class Budget:
    """Limits and what was spent of them; safe between threads."""

    def __init__(
        self,
        usd: float | None = None,
        seconds: float | None = None,
        teacher_calls: int | None = None,
        *,
        before: Spent | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`before`: what an interrupted night had spent when it ended; it goes on from there."""
        limits = BudgetConfig.parse({"usd": usd, "seconds": seconds, "teacher_calls": teacher_calls}, "budget")
        self.usd = None if limits.usd is None else exact(limits.usd)
        self.seconds = limits.seconds
        self.teacher_calls = limits.teacher_calls
        self._before = before or Spent()
        self._usd, self._calls, self._unpriced = self._before.usd, self._before.calls, self._before.unpriced
        self._clock, self._started = clock, clock()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, config: BudgetConfig, before: Spent | None = None) -> "Budget":
        """The budget that a config describes."""
        return cls(config.usd, config.seconds, config.teacher_calls, before=before)

    @property
    def spent(self) -> Spent:
        """What was used up so far."""
        seconds = self._before.seconds + self._clock() - self._started
        return Spent(self._usd, seconds, self._calls, self._unpriced)

    def allows(self, usd: float | Decimal | None, calls: int = 1, seconds: float = 0.0) -> bool:
        """Whether a step that costs at most this would stay within every limit. `usd` None: not known."""
        return self.refusal(usd, calls, seconds) is None

    def refusal(self, usd: float | Decimal | None, calls: int = 1, seconds: float = 0.0) -> str | None:
        """Which limit the next step would exceed, in one line; None: it may be taken."""
        spent = self.spent
        if self.teacher_calls is not None and spent.calls + calls > self.teacher_calls:
            return f"budget of {self.teacher_calls} teacher calls: {spent.calls} made, the next step needs {calls}"
        if self.seconds is not None and (spent.seconds >= self.seconds or spent.seconds + seconds > self.seconds):
            return f"budget of {self.seconds:g} s: {spent.seconds:.0f} s are over, the next step needs {seconds:.0f} s"
        return self._dollars(usd, spent)

    def over(self) -> str | None:
        """Why there is no time left, in one line; None: there is."""
        spent = self.spent.seconds
        if self.seconds is None or spent < self.seconds:
            return None
        return f"budget of {self.seconds:g} s: {spent:.0f} s are over"

    def spend(self, usd: float | Decimal | None, calls: int = 1) -> None:
        """Count a step that was taken. `usd` None: its price is not known."""
        with self._lock:
            self._calls += calls
            if usd is None:
                self._unpriced += calls
            else:
                self._usd += exact(usd)

    def _dollars(self, usd: float | Decimal | None, spent: Spent) -> str | None:
        if self.usd is None:
            return None
        if usd is None:
            return f"budget of ${self.usd:f}: the price of the next step is not known; give the teacher's price"
        if spent.unpriced:
            return f"budget of ${self.usd:f}: {spent.unpriced} steps were taken at a price that is not known"
        if spent.usd + exact(usd) > self.usd:
            return f"budget of ${self.usd:f}: ${spent.usd:f} spent, the next step may cost ${exact(usd):f}"
        return None
