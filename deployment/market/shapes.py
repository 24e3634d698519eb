"""What an instance is made of: price lists name a size, not its accelerators.

AWS publishes the make-up of its instances (`formats/instance_types.py` reads it). Azure's and Google's is a table
here (`data/shapes.csv`, from their documentation of sizes): the sizes with whole accelerators, and a few without any.
Sizes with a part of a GPU are left out: no engine is planned on one.
"""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).parent / "data" / "shapes.csv"


@dataclass(frozen=True, slots=True)
class Shape:
    """The make-up of an instance."""

    accelerator: str
    """Our name of it; "cpu": none."""
    count: int
    vcpus: int
    memory_gib: float


@lru_cache(maxsize=1)
def shapes() -> dict[tuple[str, str], Shape]:
    """By (cloud, instance)."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return {
            (row["cloud"], row["instance"]): Shape(
                row["accelerator"], int(row["count"]), int(row["vcpus"]), float(row["memory_gib"])
            )
            for row in csv.DictReader(file)
        }


def shapes_of(cloud: str) -> dict[str, Shape]:
    """By instance, of one cloud."""
    return {instance: shape for (c, instance), shape in shapes().items() if c == cloud}
