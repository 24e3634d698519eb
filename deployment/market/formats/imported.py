"""What a reader of a price list gives back: offers, and what was left out and why.

A price list names thousands of sizes. Those whose make-up is not known, or whose accelerator the catalogue does not
have, are left out and counted, so that a new generation is seen and not lost.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from deployment.hardware import Offer
from deployment.market.shapes import Shape
from deployment.market.store import checked
from phases.errors import DataError

_GIB = 2**30


@dataclass
class Imported:
    """Offers of one file, and the number of prices left out by reason."""

    where: str
    """The file, for messages."""
    cloud: str
    currency: str
    date: str
    source: str
    offers: list[Offer] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, instance: str, region: str, shape: Shape, price: float, *, spot: bool = False) -> None:
        """One price of an instance of that make-up."""
        offer = Offer(
            cloud=self.cloud, instance=instance, region=region, accelerator=shape.accelerator, count=shape.count,
            price=price, currency=self.currency, spot=spot, vcpus=shape.vcpus,
            memory_bytes=round(shape.memory_gib * _GIB), date=self.date, source=self.source,
        )  # fmt: skip
        try:
            self.offers.append(checked(offer))
        except ValueError as error:
            raise DataError(f"{self.where}, {instance} in {region}: {error}") from None


def text_of(path: Path) -> str:
    """The file's text. Raises DataError in one line."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from None
