"""SkyPilot's catalogues: one `vms.csv` a cloud, on demand and spot by zone.

    InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region,AvailabilityZone,…

The files: catalogs/v8/CLOUD/vms.csv of github.com/skypilot-org/skypilot-catalog. They have no day: give the one of the
commit. Of the zones of a region the cheapest counts. Google's lists hosts and accelerators on lines of their own, which
make no offer: import `gcp` prices instead.
"""

import csv
import io
from pathlib import Path

from deployment.market.accelerators import canonical_name
from deployment.market.formats.imported import Imported, text_of
from deployment.market.shapes import Shape, shapes_of
from deployment.market.store import sources
from phases.errors import DataError

_COLUMNS = ("InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "Price", "SpotPrice", "Region")
_NAMES = {
    "A100": "a100-40gb-sxm", "A100-80GB": "a100-80gb-sxm", "A100-80GB-SXM": "a100-80gb-sxm", "H100-SXM": "h100-sxm",
    "H100-MEGA": "h100-sxm", "H100-NVL": "h100-nvl", "H200-SXM": "h200-sxm", "RTX6000-Ada": "rtx-6000-ada",
    "RTXA6000": "rtx-a6000", "RTX4090": "rtx-4090", "RTX5090": "rtx-5090", "RTXPRO6000": "rtx-pro-6000",
    "V100": "v100-16gb-sxm", "V100-32GB": "v100-32gb-sxm",
}  # fmt: skip
"""SkyPilot's names that are not ours; `A100` there has 40 GB."""
_NAMES_OF_CLOUD = {
    ("azure", "A100-80GB"): "a100-80gb-pcie",
    ("azure", "V100"): "v100-16gb-pcie",
    ("runpod", "A100-80GB"): "a100-80gb-pcie",
    ("runpod", "H100"): "h100-pcie",
}
"""Where a cloud's card has another form than elsewhere."""


def read(path: Path, cloud: str, day: str) -> Imported:
    """The offers of one cloud's catalogue, seen on `day` (ISO). Raises DataError."""
    imported = Imported(str(path), cloud, "USD", day, sources()["skypilot"])
    cheapest: dict[tuple[str, str, bool], tuple[Shape, float]] = {}
    for row in _rows(path):
        shape = _shape(row, cloud)
        if isinstance(shape, str):
            imported.left_out[shape] += 1
            continue
        for column, spot in (("Price", False), ("SpotPrice", True)):
            key, price = (row["InstanceType"], row["Region"], spot), float(row[column] or 0)
            if price > 0 and (key not in cheapest or price < cheapest[key][1]):
                cheapest[key] = shape, price
    for (instance, region, spot), (shape, price) in cheapest.items():
        imported.add(instance, region, shape, price, spot=spot)
    return imported


def _rows(path: Path) -> list[dict[str, str]]:
    """The lines, with their numbers checked."""
    reader = csv.DictReader(io.StringIO(text_of(path)))
    missing = [c for c in _COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}: this is not a vms.csv of SkyPilot")
    rows = []
    for row in reader:
        try:
            for column in ("AcceleratorCount", "vCPUs", "MemoryGiB", "Price", "SpotPrice"):
                int(float(row[column] or 0))  # refuses "nan" and "inf" too
        except (ValueError, OverflowError):
            raise DataError(f"{path}, line {reader.line_num}: {column} is {row[column]!r}, not a number") from None
        rows.append(row)
    return rows


def _shape(row: dict[str, str], cloud: str) -> Shape | str:
    """The make-up of a line's instance, or why the line makes no offer."""
    name, count = row["AcceleratorName"] or "", float(row["AcceleratorCount"] or 0)
    table = shapes_of(cloud).get(row["InstanceType"])
    if not row["InstanceType"] or (table is not None and table.count > 0 and not name):
        return "of a host or an accelerator alone"
    if table is not None:
        return table
    ours = _NAMES_OF_CLOUD.get((cloud, name)) or _NAMES.get(name) or canonical_name(name) if name else "cpu"
    if ours is None:
        return f"with {name}, which the catalogue does not have"
    if count != int(count):
        return "with a part of an accelerator"
    return Shape(ours, int(count), int(float(row["vCPUs"] or 0)), float(row["MemoryGiB"] or 0))
