"""Puts machine time and people's hours into the ledger at their price, or as unknown where there is none.

book_compute(ledger, "training", seconds, hour_price(config.compute, "money.compute"), key="night 3: student")
book_people(ledger, config.people_hours, config.usd_per_people_hour)
assess(config, measured, invested(ledger, config), seed=0)
"""

from decimal import Decimal

from distillation.money.amount import Amount, exact, given, known
from distillation.money.hosting import HourPrice, hour_price
from distillation.money.ledger import Kind, Ledger
from distillation.money.money_config import MoneyConfig
from phases.errors import ConfigError


def book_compute(ledger: Ledger, kind: Kind, seconds: float, hour: HourPrice, key: str = "") -> None:
    """Seconds of the machine that trains and measures. The same `key` is booked once."""
    unit_usd = None if hour.usd.value is None else hour.usd.value / 3600
    ledger.add(kind, seconds, "second", unit_usd=unit_usd, key=key, note=hour.source)


def book_people(ledger: Ledger, hours: float, usd_per_hour: float | None) -> None:
    """Bring the hours that people spent so far up to `hours`: what is there already stays at its price."""
    booked = sum((exact(e.quantity) for e in ledger.entries() if e.kind == "people"), start=Decimal(0))
    more = exact(hours) - booked
    if more < 0:
        raise ConfigError(
            f"money.people_hours is {hours:g}, but {ledger.path} has {booked:f} already, and a ledger only grows: "
            "give all hours so far"
        )
    if more > 0:
        ledger.add("people", float(more), "hour", unit_usd=usd_per_hour, key=f"people up to {hours:g} h")


def invested(ledger: Ledger, config: MoneyConfig) -> dict[Kind, Amount]:
    """What was spent, by kind; what was booked without a price is taken at today's."""
    second = hour_price(config.compute, "money.compute").usd / known(3600)
    hour = given(config.usd_per_people_hour, "money.usd_per_people_hour")
    return ledger.invested({"second": second, "hour": hour})
