"""What an hour of a machine costs: a price of one's own, or the cheapest offer of the market for what was named.

    hour_price(Machine(accelerator="l4", cloud="gcp")).usd     # Decimal("0.704518")
    hour_price(Machine(instance="c7g.large")).source           # "aws c7g.large us-east-1, seen 2026-07-20: …"

The market is `deployment.market`: dated public price lists, on demand unless `spot`, a whole instance at a time.
"""

from dataclasses import dataclass

from pydantic import Field

from deployment.hardware import Offer
from deployment.market.offers import offers
from distillation.money.amount import Amount, known, unknown
from phases.errors import ConfigError
from phases.strict import StrictModel


class Machine(StrictModel):
    """What computes, or what its hour costs; empty: not known."""

    usd_per_hour: float | None = Field(default=None, ge=0)
    """What an hour costs you; it goes before any offer, and 0 is a price."""
    accelerator: str = ""
    """Such as `l4` or `h100-sxm`: the cheapest instance that has one."""
    instance: str = ""
    """A cloud's name of it, such as `c7g.large`; for machines without an accelerator too."""
    cloud: str = ""
    """Only this cloud's offers; empty: any."""
    region: str = ""
    """Only this region's offers; empty: any."""
    spot: bool = False
    """Whether a machine that may be taken away counts."""


@dataclass(frozen=True, slots=True)
class HourPrice:
    """Dollars an hour, and where that stands."""

    usd: Amount
    source: str


def hour_price(machine: Machine, name: str) -> HourPrice:
    """The price of an hour; unknown under `name` where the machine is not said.

    Raises InputError for an accelerator, cloud or region that nobody offers, ConfigError where nothing is left.
    """
    if machine.usd_per_hour is not None:
        return HourPrice(known(machine.usd_per_hour), "config")
    if not (machine.accelerator or machine.instance):
        return HourPrice(unknown(f"{name}.usd_per_hour"), "")
    offer = _cheapest(machine, name)
    where = f"{offer.cloud} {offer.instance} {offer.region}{' spot' if offer.spot else ''}"
    return HourPrice(known(offer.price), f"{where}, seen {offer.date}: {offer.source}")


def _cheapest(machine: Machine, name: str) -> Offer:
    found = offers(
        accelerators=[machine.accelerator] if machine.accelerator else None,
        clouds=[machine.cloud] if machine.cloud else None,
        regions=[machine.region] if machine.region else None,
        spot=None if machine.spot else False,
    )
    left = [offer for offer in found if machine.instance in ("", offer.instance)]
    if not left:
        wanted = " ".join(filter(None, [machine.instance, machine.accelerator, machine.cloud, machine.region]))
        raise ConfigError(f"{name}: nobody offers '{wanted}'; give {name}.usd_per_hour, or name another instance")
    return min(left, key=lambda o: (o.price, o.cloud, o.instance, o.region))
