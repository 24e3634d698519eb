"""`Amount`: a figure that is known exactly, or says what is missing.

A price that nobody knows is not 0. What is computed from it is unknown too, and carries the name of what is missing up
to the report, while every other figure still comes. Sums are decimal, so that they agree with a calculator to the cent.

    cost = known(0.15) * known(12)                # 1.80
    (cost + unknown("money.usd_per_error")).missing   # ("money.usd_per_error",)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from phases.errors import InputError

CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Amount:
    """A number, or the names of what it would need."""

    value: Decimal | None
    missing: tuple[str, ...] = ()
    """What is not known, each as the user can give it; empty for a known amount."""

    def __post_init__(self) -> None:
        assert (self.value is None) == bool(self.missing), "an amount is known, or says what is missing"

    def __add__(self, other: Amount) -> Amount:
        if self.value is None or other.value is None:
            return self._lacking(other)
        return Amount(self.value + other.value)

    def __sub__(self, other: Amount) -> Amount:
        if self.value is None or other.value is None:
            return self._lacking(other)
        return Amount(self.value - other.value)

    def __mul__(self, other: Amount) -> Amount:
        """The product; nothing of something whose price is not known costs nothing."""
        if self.value == 0 or other.value == 0:
            return Amount(Decimal(0))
        if self.value is None or other.value is None:
            return self._lacking(other)
        return Amount(self.value * other.value)

    def __truediv__(self, other: Amount) -> Amount:
        if self.value == 0 and other.value != 0:
            return self
        if self.value is None or other.value is None:
            return self._lacking(other)
        return Amount(self.value / other.value)

    def _lacking(self, other: Amount) -> Amount:
        return Amount(None, tuple(dict.fromkeys([*self.missing, *other.missing])))

    @property
    def cents(self) -> Decimal | None:
        """Rounded to the cent, halves away from zero, as an invoice has it."""
        return None if self.value is None else self.value.quantize(CENT, ROUND_HALF_UP)

    @property
    def as_float(self) -> float | None:
        """For plots and simulations."""
        return None if self.value is None else float(self.value)


def exact(value: float | int | Decimal) -> Decimal:
    """The decimal number that was written: 0.1 is a tenth, not the nearest binary fraction.

    Raises InputError where it is not finite.
    """
    if not math.isfinite(value):
        raise InputError(f"an amount of money is {value}; give a finite number, or leave it out where it is not known")
    return value if isinstance(value, Decimal) else Decimal(value if isinstance(value, int) else repr(float(value)))


def known(value: float | int | Decimal) -> Amount:
    """A known amount."""
    return Amount(exact(value))


NOTHING = known(0)


def unknown(name: str) -> Amount:
    """An amount that needs `name`."""
    return Amount(None, (name,))


def given(value: float | Decimal | None, name: str) -> Amount:
    """The value, or unknown under `name` where there is none."""
    return unknown(name) if value is None else known(value)


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum; of nothing it is 0."""
    return sum(amounts, start=NOTHING)
