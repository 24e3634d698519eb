"""Offers as a CSV file: one line an offer, sorted, so that a new price is one changed line.

    cloud,instance,region,spot,accelerator,count,price,currency,vcpus,memory_gib,date,source

`spot` is 0 or 1, `accelerator` "cpu" where there is none, `vcpus` and `memory_gib` 0 where the price list does not say,
`source` a key of `data/sources.json` or free text. The same columns are what `importing plain` reads.
"""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from functools import lru_cache
from pathlib import Path

from deployment.hardware import Offer
from deployment.market.accelerators import canonical_name
from phases.errors import DataError

COLUMNS = (
    "cloud", "instance", "region", "spot", "accelerator", "count", "price", "currency", "vcpus", "memory_gib", "date",
    "source",
)  # fmt: skip
_GIB = 2**30
_SPOT = ("0", "1")


@lru_cache(maxsize=1)
def sources() -> dict[str, str]:
    """What the keys of the column `source` stand for."""
    text = (Path(__file__).parent / "data" / "sources.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def read_offers(path: Path) -> list[Offer]:
    """The offers of a file in the columns above. Raises DataError with the line that is wrong."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if tuple(header) != COLUMNS:
                raise DataError(f"{path}: the first line has to be {','.join(COLUMNS)}")
            return [_offer(row, path, rows.line_num) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV file: {error}") from None


def write_offers(path: Path, offers: Iterable[Offer]) -> None:
    """Write them sorted by cloud, instance, region and on-demand before spot; the file appears whole or not at all."""
    keys = {text: key for key, text in sources().items()}
    unfinished = path.with_suffix(".unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(_row(offer, keys) for offer in sorted(offers, key=identity))
        unfinished.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}; name another file with --store") from None


def identity(offer: Offer) -> tuple[str, str, str, bool]:
    """What makes two rows the same offer at different times."""
    return offer.cloud, offer.instance, offer.region, offer.spot


def merge(old: Iterable[Offer], new: Sequence[Offer], *, complete: bool = False) -> list[Offer]:
    """Both; of the same offer the newer price, and of the same day the one in `new`.

    `complete`: `new` has everything that its source has of each cloud and region that it names, so that older offers
    of that source there, which it no longer has, are no longer let and are dropped.
    """
    lists = {_list(offer): offer.date for offer in new} if complete else {}
    kept = {identity(offer): offer for offer in old if offer.date > lists.get(_list(offer), "")}
    for offer in new:
        before = kept.get(identity(offer))
        if before is None or offer.date >= before.date:
            kept[identity(offer)] = offer
    return list(kept.values())


def _list(offer: Offer) -> tuple[str, str, str]:
    """The part of a price list that an offer stands in."""
    return offer.cloud, offer.source, offer.region


def checked(offer: Offer) -> Offer:
    """The offer, with our name of its accelerator. Raises ValueError on one that cannot be."""
    if not 1e-4 <= offer.price < math.inf:
        raise ValueError(f"a price of {offer.price} per hour; it has to be at least 0.0001")
    name = offer.accelerator if offer.accelerator == "cpu" else canonical_name(offer.accelerator)
    if name is None:
        raise ValueError(f"unknown accelerator '{offer.accelerator}'; add it to data/accelerators.json")
    if (name == "cpu") != (offer.count == 0) or offer.count < 0 or offer.vcpus < 0 or offer.memory_bytes < 0:
        raise ValueError(f"{offer.count} accelerators of '{name}' (cpu has 0); no size may be negative")
    if not (offer.cloud and offer.instance and offer.region and len(offer.currency) == 3 and offer.source):
        raise ValueError("cloud, instance, region, source and a currency of three letters are needed")
    if date.fromisoformat(offer.date).isoformat() != offer.date:
        raise ValueError(f"date is '{offer.date}'; write it as YYYY-MM-DD")
    return offer if name == offer.accelerator else replace(offer, accelerator=name)


def _offer(row: list[str], path: Path, line: int) -> Offer:
    try:
        if len(row) != len(COLUMNS):
            raise ValueError(f"{len(row)} values for {len(COLUMNS)} columns")
        cloud, instance, region, spot, accelerator, count, price, currency, vcpus, memory_gib, day, source = row
        if spot not in _SPOT:
            raise ValueError(f"spot is '{spot}'; it has to be 0 or 1")
        offer = Offer(
            cloud, instance, region, accelerator, int(count), float(price), currency, spot == _SPOT[True],
            int(vcpus), round(float(memory_gib) * _GIB), day, sources().get(source, source),
        )  # fmt: skip
        return checked(offer)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}, line {line}: {error}") from None


def _row(offer: Offer, keys: dict[str, str]) -> list[str]:
    memory_gib = f"{offer.memory_bytes / _GIB:.6g}"
    price = f"{offer.price:.6f}".rstrip("0").rstrip(".")
    source = keys.get(offer.source, offer.source)
    return [
        offer.cloud, offer.instance, offer.region, _SPOT[offer.spot], offer.accelerator, str(offer.count), price,
        offer.currency, str(offer.vcpus), memory_gib, offer.date, source,
    ]  # fmt: skip
