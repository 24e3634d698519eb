"""What the clouds let: instances by cloud, region, accelerator and price, cheapest first.

The shipped file (`data/offers.csv`) holds what `python -m deployment.market.importing` made of public price lists, each
line with its day and source. `FORGE_OFFERS=FILE` names another one, such as a team's own prices. A price is of the
whole instance and an hour, without storage, traffic or tax.

    from deployment.market.offers import offers
    offers(accelerators=["h100-sxm"], clouds=["gcp"], spot=False)[0].price_per_accelerator
"""

import os
from collections.abc import Collection, Iterable
from datetime import date as Date
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from deployment.hardware import Offer
from deployment.market.accelerators import accelerator
from deployment.market.store import read_offers
from phases.errors import InputError

VARIABLE = "FORGE_OFFERS"
SHIPPED = Path(__file__).parent / "data" / "offers.csv"


def offers(
    *,
    clouds: Collection[str] | None = None,
    regions: Collection[str] | None = None,
    accelerators: Collection[str] | None = None,
    spot: bool | None = None,
    max_price: float | None = None,
    date: str | None = None,
    currency: str = "USD",
) -> list[Offer]:
    """The offers that meet every condition given, cheapest per accelerator first; "cpu" asks for those without one.

    `spot`: True for interruptible ones only, False for on demand only. `max_price`: of the whole instance, per hour, in
    `currency`; nothing is converted. `date`: ISO day; older prices are left out.
    Raises InputError on a cloud, region or accelerator that no offer has (with the nearest names), on a bad day and on
    a price that is not positive.
    """
    everything = all_offers()
    wanted_clouds = _known(clouds, {o.cloud for o in everything}, "cloud")
    wanted_regions = _known(regions, {o.region for o in everything}, "region")
    wanted = None if accelerators is None else {"cpu" if a == "cpu" else accelerator(a).name for a in accelerators}
    since = _day(date)
    if max_price is not None and not max_price > 0:
        raise InputError(f"max_price is {max_price}; give what an instance may cost an hour, above 0")
    found = [
        o
        for o in everything
        if o.currency == currency
        and (wanted_clouds is None or o.cloud in wanted_clouds)
        and (wanted_regions is None or o.region in wanted_regions)
        and (wanted is None or o.accelerator in wanted)
        and (spot is None or o.spot == spot)
        and (max_price is None or o.price <= max_price)
        and o.date >= since
    ]
    return sorted(found, key=lambda o: (o.price_per_accelerator, o.price, o.cloud, o.instance, o.region))


def all_offers() -> tuple[Offer, ...]:
    """Every offer of the file in force, in its order."""
    path = file()
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file of offers; {VARIABLE} names it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {VARIABLE} names it") from None


def file() -> Path:
    """Where the offers in force are: the shipped ones, or where FORGE_OFFERS says."""
    return Path(os.environ.get(VARIABLE) or SHIPPED)


@lru_cache(maxsize=2)
def _read(path: Path, _changed: int) -> tuple[Offer, ...]:
    """Read once per file and change of it."""
    return tuple(read_offers(path))


def _known(asked: Collection[str] | None, known: Iterable[str], what: str) -> set[str] | None:
    """The names asked for; every one has to be known."""
    if asked is None:
        return None
    if isinstance(asked, str):
        raise InputError(f"{what}s is the text '{asked}'; give a list of names")
    names = set(known)
    for name in asked:
        if name not in names:
            near = get_close_matches(name, names, n=5, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(sorted(names))}"
            raise InputError(f"no offers of {what} '{name}': {hint}")
    return set(asked)


def _day(date: str | None) -> str:
    if date is None:
        return ""
    try:
        return Date.fromisoformat(date).isoformat()
    except ValueError:
        raise InputError(f"date '{date}' is not an ISO day such as 2026-07-01") from None
