"""The ledger: what a project has spent on labelling, judging, training, evaluation and people, one JSON line each.

    ledger = Ledger(out / "ledger.jsonl", night=3)
    ledger.add("labelling", 1, "call", usd=answer.usd, key=ask_key, note=teacher.name)
    ledger.add("training", 412.0, "second", unit_usd=usd_per_second)
    ledger.invested()["labelling"]          # an Amount: unknown as soon as one line has no price

Lines are only ever appended, each fsynced under a lock: several processes may write, and a killed one loses at most the
line it was writing. A line with a key that is there already is not added again: who does something over after a crash
may book it over. A last line without its end was never confirmed: it is passed over, and the next writer cuts it off.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal, get_args

import pydantic
from pydantic import Field

from distillation.money.amount import Amount, exact, given, known, total
from distillation.money.budget import Spent
from phases.errors import InputError
from phases.storage import explain_os_errors, fsync_path
from phases.strict import StrictModel

Kind = Literal["labelling", "judging", "training", "evaluation", "people"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CALLS: tuple[Kind, ...] = ("labelling", "judging")
"""What a budget's dollars and calls are for."""


class Entry(StrictModel):
    """One line: so much of something, at a price that is known or not."""

    at: str
    """When, ISO 8601 in UTC."""
    night: int = Field(ge=0)
    kind: Kind
    quantity: float = Field(ge=0)
    unit: str
    """What is counted: `call`, `second`, `hour`."""
    unit_usd: Decimal | None
    """Price of one; None where only the sum is known, or nothing."""
    usd: Decimal | None
    """What it came to; None: the price is not known."""
    key: str = ""
    """What makes it the same expense when it is booked again."""
    note: str = ""
    """Who or what was paid."""


class Ledger:
    """The expenses in one file."""

    def __init__(self, path: Path, night: int = 0, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """`night`: the one that new lines belong to."""
        self.path, self.night, self._now = path, night, now
        self._read_bytes = 0
        self._entries: list[Entry] = []
        self._keys: set[str] = set()

    def add(
        self,
        kind: Kind,
        quantity: float,
        unit: str,
        *,
        usd: float | Decimal | None = None,
        unit_usd: float | Decimal | None = None,
        key: str = "",
        note: str = "",
    ) -> bool:
        """Append a line; False: one with that key is there already. Without `usd`, it is quantity times unit price."""
        price = None if unit_usd is None else exact(unit_usd)
        sum_usd = exact(usd) if usd is not None else None if price is None else exact(quantity) * price
        at = self._now().astimezone(UTC).isoformat(timespec="milliseconds")
        entry = Entry.parse(
            {"at": at, "night": self.night, "kind": kind, "quantity": quantity, "unit": unit, "unit_usd": price}
            | {"usd": sum_usd, "key": key, "note": note},
            "ledger",
        )
        with self._locked() as descriptor:
            self._catch_up()
            if key and key in self._keys:
                return False
            os.ftruncate(descriptor, self._read_bytes)
            os.pwrite(descriptor, (entry.model_dump_json() + "\n").encode(), self._read_bytes)
            os.fsync(descriptor)
            self._catch_up()
        return True

    def entries(self) -> tuple[Entry, ...]:
        """All lines, oldest first. Raises InputError with the line that was altered."""
        self._catch_up()
        return tuple(self._entries)

    def invested(self, unit_usd: Mapping[str, Amount] | None = None) -> dict[Kind, Amount]:
        """The sum of each kind; lines without a price at that of their unit, and unknown where there is none either."""
        entries, prices = self.entries(), unit_usd or {}
        return {kind: total(_usd(e, prices) for e in entries if e.kind == kind) for kind in KINDS}

    def spent(self, night: int) -> Spent:
        """What teachers and judges cost in one night: where the budget of a resumed night goes on from."""
        paid = [e for e in self.entries() if e.night == night and e.kind in CALLS]
        known = sum((e.usd for e in paid if e.usd is not None), start=Decimal(0))
        calls = round(sum(e.quantity for e in paid if e.unit == "call"))
        return Spent(known, calls=calls, unpriced=sum(e.usd is None for e in paid))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        with explain_os_errors(self.path):
            new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if new:
                    fsync_path(self.path.parent)
                yield descriptor
            finally:
                os.close(descriptor)

    def _catch_up(self) -> None:
        """Read what was appended since the last time, whole lines only."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            whole, end, _ = file.read().rpartition(b"\n")
        for line in whole.split(b"\n") if end else []:
            entry = self._parse(line)
            self._entries.append(entry)
            self._keys.add(entry.key)
            self._read_bytes += len(line) + 1

    def _parse(self, line: bytes) -> Entry:
        try:
            return Entry.model_validate_json(line)
        except pydantic.ValidationError:
            raise InputError(
                f"{self.path}, line {len(self._entries) + 1}: no line of a ledger; mend it or take it out, "
                "sums would be wrong without it"
            ) from None


def _usd(entry: Entry, unit_usd: Mapping[str, Amount]) -> Amount:
    if entry.usd is None and entry.unit in unit_usd:
        return known(entry.quantity) * unit_usd[entry.unit]
    return given(entry.usd, f"price of {entry.kind} ({entry.unit})")
