"""Prices of ten clouds a day, as the GPU price index collects them: one line an instance, or a card of a cloud's.

    date,…,source,provider,segment,pricing,gpu_model,sku,region,geo,gpu_count,usd_per_hour,usd_per_gpu_hour,sample_size

The files: data/observations/YEAR/DAY.csv of github.com/ewyluda/gpu-price-index. What an instance is made of is known
from the table of shapes, from the offers in force, or from the line itself. Oracle's and RunPod's prices are of one
GPU, so they are multiplied; of Crusoe, Hyperstack and Nebius the list names cards and no sizes, so that only those are
read that are on offer under the card's name.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from deployment.market.accelerators import canonical_name
from deployment.market.formats.imported import Imported, text_of
from deployment.market.offers import all_offers
from deployment.market.shapes import Shape, shapes
from deployment.market.store import sources
from phases.errors import DataError

_COLUMNS = ("date", "source", "provider", "pricing", "gpu_model", "sku", "region", "gpu_count", "usd_per_hour")
_SIZES = ("aws", "azure", "gcp", "coreweave", "lambda")
"""Clouds of which `sku` is an instance."""
_MODELS = {
    "A100-40GB": "a100-40gb-sxm", "A100-80GB": "a100-80gb-sxm", "A100-80GB-PCIe": "a100-80gb-pcie", "H100": "h100-sxm",
    "H100-PCIe": "h100-pcie", "H100-NVL": "h100-nvl", "H200": "h200-sxm", "B200": "b200-sxm", "B300": "b300-sxm",
}  # fmt: skip
"""The index's names of cards that are not ours."""
_RUNPOD_COUNTS = (1, 2, 4, 8)
"""GPUs of a pod in the secure cloud; a host of the community cloud has one for certain."""
_PLACEHOLDER = 0.5
"""RunPod's price of what nobody offers."""
_GIB = 2**30
Sized = tuple[str, Shape, int]
"""An instance, its make-up, and how many times the line's price it costs."""


def read(path: Path) -> Imported:
    """The file's offers, each line with its own day. Raises DataError."""
    imported = Imported(str(path), "", "USD", "", "")
    known = dict(shapes())
    for offer in all_offers():
        size = offer.vcpus, offer.memory_bytes / _GIB
        known.setdefault((offer.cloud, offer.instance), Shape(offer.accelerator, offer.count, *size))
    for line, row in _rows(path):
        imported.cloud, imported.date = row["source"], row["date"]
        price, spot = float(row["usd_per_hour"]), row["pricing"] == "spot"
        found = _instances(row, known)
        if not found or price <= 0:
            imported.left_out["of a card without a size, a part of one, or one that the catalogue does not have"] += 1
        for instance, shape, factor in found if price > 0 else ():
            imported.source = sources()["gpu-price-index" if factor == 1 else "gpu-price-index-per-gpu"]
            try:
                imported.add(instance, row["region"], shape, price * factor, spot=spot)
            except DataError as error:
                raise DataError(f"{path}, line {line}: {error}") from None
    return imported


def _instances(row: dict[str, str], known: dict[tuple[str, str], Shape]) -> list[Sized]:
    """What the line lets; nothing where it does not say that."""
    cloud, name, count = row["source"], row["sku"].strip(), int(row["gpu_count"])
    ours = _MODELS.get(row["gpu_model"]) or canonical_name(row["gpu_model"])
    if ours is None or " MIG " in name:
        return []
    if cloud == "vast":
        return [(f"1x {ours} (median offer)", Shape(ours, 1, 0, 0.0), 1)]
    if cloud == "runpod":
        if float(row["usd_per_hour"]) == _PLACEHOLDER:
            return []
        kind = "secure" if "Secure" in row["provider"] else "community"
        counts = _RUNPOD_COUNTS if kind == "secure" else _RUNPOD_COUNTS[:1]
        return [(f"{n}x {name} ({kind})", Shape(ours, n, 0, 0.0), n) for n in counts]
    if cloud == "oracle":
        size = re.search(r"\.(\d+)$", name)
        count = int(size[1]) if size else 1
        return [(name, known.get((cloud, name), Shape(ours, count, 0, 0.0)), count)]
    shape = known.get((cloud, name)) or (Shape(ours, count, 0, 0.0) if cloud in _SIZES else None)
    return [(name, shape, 1)] if shape else []


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines with their numbers checked."""
    reader = csv.DictReader(io.StringIO(text_of(path)))
    missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}: this is not a day of the GPU price index")
    for row in reader:
        try:
            int(row["gpu_count"]), float(row["usd_per_hour"])
        except (TypeError, ValueError):
            raise DataError(f"{path}, line {reader.line_num}: gpu_count or usd_per_hour is no number") from None
        yield reader.line_num, row
