"""Asks a teacher what is missing, within a budget, and keeps every answer the moment it comes.

    with CaptureStore(folder / "captures.sqlite") as store:
        collected = collect(teacher, asks, store, budget=Budget(usd=2.0), ledger=ledger)
    collected.answers[3].text; collected.stopped          # why it ended early, or empty

What the store has is never asked. A question goes out only if the budget would hold even if it, and all that are under
way, cost the most that a request can; attempts that are repeated inside, and may have been charged, count when they are
over. What another process is asking is waited for. A kill loses no answer that was stored, and at most the ledger's
line of the last one.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from distillation.money.budget import Budget
from distillation.money.ledger import Ledger
from distillation.teachers.store import INTERRUPTED, CaptureStore, ask_key
from distillation.teachers.teacher import Answer, Ask, Failure, PricedTeacher

LOOK_SECONDS = 0.2
"""How often the store is looked at for what another process is asking."""


@dataclass(frozen=True)
class Collected:
    """What there is now."""

    answers: dict[int, Answer]
    """By the question's index."""
    failures: dict[int, Failure]
    from_store: int
    """Questions that the store answered, or an equal question among these."""
    asked: int
    """Questions that went to the teacher."""
    usd: float | None
    """What the answers that were asked for cost; None: a price is not known."""
    wasted: int
    """Attempts without an answer that the provider may have charged for."""
    wasted_usd: float | None
    """At most, for those; None: the price is not known."""
    stopped: str
    """Why some were not asked; empty: all were."""

    def finished(self) -> dict[int, str]:
        """Texts that were not cut off, by the question's index."""
        return {i: answer.text for i, answer in self.answers.items() if answer.finish == "stop"}


def collect(
    teacher: PricedTeacher,
    asks: Sequence[Ask],
    store: CaptureStore,
    *,
    budget: Budget | None = None,
    ledger: Ledger | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """An answer or a failure for every question, as far as the budget goes. `progress` is told how many of how many."""
    return _Collection(teacher, asks, store, budget or Budget(), ledger, progress).run()


class _Collection:
    def __init__(
        self,
        teacher: PricedTeacher,
        asks: Sequence[Ask],
        store: CaptureStore,
        budget: Budget,
        ledger: Ledger | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.teacher, self.asks, self.store, self.budget, self.ledger = teacher, asks, store, budget, ledger
        self.progress = progress
        self.places: dict[str, list[int]] = {}
        for index, ask in enumerate(asks):
            self.places.setdefault(ask_key(teacher.identity, ask), []).append(index)
        self.waiting: deque[str] = deque()
        self.sent: list[str] = []
        """Of this round, in the order of the teacher's indices."""
        self.under_way: dict[str, float | None] = {}
        """With the most that each may cost."""
        self.answers: dict[int, Answer] = {}
        self.failures: dict[int, Failure] = {}
        self.from_store = self.asked = self.wasted = 0
        self.usd: float | None = 0.0
        self.wasted_usd: float | None = 0.0
        self.refusal = ""

    def run(self) -> Collected:
        for key in self.places:
            if not self._from_store(key):
                self.waiting.append(key)
        stopped = ""
        while self.waiting and not stopped:
            self._round()
            if self.waiting and not self.sent:
                stopped = self.refusal
                if not stopped:
                    time.sleep(LOOK_SECONDS)
        counts = (self.from_store, self.asked, self.usd, self.wasted, self.wasted_usd)
        return Collected(dict(sorted(self.answers.items())), dict(sorted(self.failures.items())), *counts, stopped)

    def _round(self) -> None:
        """Ask until nothing waits, the budget ends, or the rest is another's to ask."""
        self.sent, self.refusal = [], ""
        try:
            for index, outcome in self.teacher.answer(self._admitted()):
                self._settle(self.sent[index], outcome)
        finally:
            for key in list(self.under_way):
                self.store.fail(self.teacher, self._ask(key), Failure(INTERRUPTED, lasting=False, wasted=1))
            self.under_way.clear()

    def _admitted(self) -> Iterator[Ask]:
        """The questions that are ours to ask; taken one by one, as the teacher has room."""
        for _ in range(len(self.waiting)):
            key = self.waiting.popleft()
            ask = self._ask(key)
            most = self.teacher.most_usd(ask)
            self.refusal = self._refuses(most) or ""
            if self.refusal:
                self.waiting.appendleft(key)
                return
            claim = self.store.claim(self.teacher, ask)
            if claim == "taken":
                self.waiting.append(key)
            elif claim == "answered":
                self._from_store(key)
            else:
                self.sent.append(key)
                self.under_way[key] = most
                yield ask

    def _refuses(self, most: float | None) -> str | None:
        costs = [most, *self.under_way.values()]
        known = [cost for cost in costs if cost is not None]
        return self.budget.refusal(sum(known) if len(known) == len(costs) else None, calls=len(costs))

    def _settle(self, key: str, outcome: Answer | Failure) -> None:
        ask, most = self._ask(key), self.under_way.pop(key)
        if isinstance(outcome, Answer):
            self.store.put(self.teacher, ask, outcome)
        else:
            self.store.fail(self.teacher, ask, outcome)
        self.asked += 1
        self._pay(key, outcome, most)
        self._give(key, outcome)

    def _pay(self, key: str, outcome: Answer | Failure, most: float | None) -> None:
        name = self.teacher.name
        if isinstance(outcome, Answer):
            self.usd = None if self.usd is None or outcome.usd is None else self.usd + outcome.usd
            self.budget.spend(outcome.usd)
            if self.ledger is not None:
                self.ledger.add("labelling", 1, "call", usd=outcome.usd, key=key, note=name)
        if outcome.wasted:
            lost = None if most is None else most * outcome.wasted
            self.wasted += outcome.wasted
            self.wasted_usd = None if self.wasted_usd is None or lost is None else self.wasted_usd + lost
            self.budget.spend(lost, calls=outcome.wasted)
            if self.ledger is not None:
                note = f"{name}: attempts without an answer that may have been charged, at most"
                self.ledger.add("labelling", outcome.wasted, "call", usd=lost, note=note)

    def _from_store(self, key: str) -> bool:
        answer = self.store.get(self.teacher, self._ask(key))
        if answer is not None:
            self.from_store += 1
            self._give(key, answer)
        return answer is not None

    def _give(self, key: str, outcome: Answer | Failure) -> None:
        if isinstance(outcome, Answer):
            self.from_store += len(self.places[key]) - 1
        for index in self.places[key]:
            if isinstance(outcome, Answer):
                self.answers[index] = outcome
            else:
                self.failures[index] = outcome
        if self.progress is not None:
            self.progress(len(self.answers) + len(self.failures), len(self.asks))

    def _ask(self, key: str) -> Ask:
        return self.asks[self.places[key][0]]
