"""Prices of Google Cloud as Karpenter's GCP provider keeps them: JSON by region, on demand and spot.

    {"prices": {"us-central1": {"on_demand": {"g2-standard-4": 0.7068}, "spot": {"g2-standard-4": 0.3973}}}}

The file: pkg/providers/pricing/initial-prices.json of github.com/cloudpilot-ai/karpenter-provider-gcp. Accelerators and
local disks of a size are in its price. The file has no day: give the one of its commit.
"""

import json
from pathlib import Path

from deployment.market.formats.imported import Imported, text_of
from deployment.market.shapes import shapes_of
from deployment.market.store import sources
from phases.errors import DataError

_KINDS = {"on_demand": False, "spot": True}


def read(path: Path, day: str) -> Imported:
    """The file's offers, seen on `day` (ISO). Raises DataError."""
    imported = Imported(str(path), "gcp", "USD", day, sources()["gcp-billing-catalog"])
    made_of = shapes_of("gcp")
    for region, instance, price, spot in _prices(path):
        if instance in made_of:
            imported.add(instance, region, made_of[instance], price, spot=spot)
        else:
            imported.left_out["of a size that data/shapes.csv does not have"] += 1
    return imported


def _prices(path: Path) -> list[tuple[str, str, float, bool]]:
    """(region, instance, price per hour, spot)."""
    try:
        return [
            (region, instance, float(price), _KINDS[kind])
            for region, kinds in json.loads(text_of(path))["prices"].items()
            for kind, prices in kinds.items()
            for instance, price in prices.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not JSON of prices by region, kind and instance ({error!r})") from None
