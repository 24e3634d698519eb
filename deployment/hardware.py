"""Accelerators and the instances that can be rented: plain facts with their source, in SI units."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One GPU or other accelerator."""

    name: str
    """Our key: `h100-sxm`, `l4`, `mi300x`, …"""
    vendor: str
    memory_bytes: int
    """Really usable: what the driver reports (an "80 GB" H100 has 79.19 GiB), not what the box says."""
    bandwidth: float
    """Bytes per second of its memory."""
    flops: dict[str, float]
    """Dense tensor FLOP/s by precision: `bf16`, `fp8`, `int8`, `fp4`; one that is absent is not supported. `fp16`
    stands only where there is no `bf16`."""
    link_bandwidth: float
    """Bytes per second and direction to a neighbour in the node (NVLink, xGMI, or PCIe where there is no other)."""
    network_bandwidth: float
    """Bytes per second and direction to another node, per accelerator."""
    link_domain: int
    """Accelerators that the fast link joins (8 in an HGX node, 72 in a GB200 rack, 1: PCIe only)."""
    power_watts: float
    source: str
    compute_capability: float | None = None
    """NVIDIA's, or of AMD the first digits of its gfx name, as ROCm tells it; None: it has none."""

    @property
    def half(self) -> str:
        """Key of `flops` for 16 bits."""
        return "fp16" if "fp16" in self.flops else "bf16"


@dataclass(frozen=True, slots=True)
class Offer:
    """An instance that a cloud lets, in one region, at one price."""

    cloud: str
    instance: str
    region: str
    accelerator: str
    """Name of an `Accelerator`; "cpu" for none."""
    count: int
    """Accelerators in the instance."""
    price: float
    """Per hour, in `currency`."""
    currency: str
    spot: bool
    vcpus: int
    memory_bytes: int
    date: str
    """ISO date on which the price was seen."""
    source: str

    @property
    def price_per_accelerator(self) -> float:
        """Per hour; the whole instance's where it has none."""
        return self.price / max(1, self.count)

    @property
    def marketplace(self) -> bool:
        """One machine that somebody offers at a marketplace, not a size that is let as often as one asks."""
        return self.instance.endswith(" offer)")  # as the collections name them, `1x l4 (cheapest verified offer)`
