"""The accelerators that the calculator knows, by name or by what drivers, clouds and benchmarks call them.

The facts are data (`data/accelerators.json`, its schema beside it); a memory or a rate that is wrong is mended there.
Memory is what an engine really gets: `vllm serve` on an "80 GB" H100 sees 79.18 GiB. How each figure is known stands
in `source`: "allocator" is what the CUDA or HIP runtime offers a process, "driver" what the vendor's tool shows,
"nominal" what the box says. Rates are dense; datasheets often print the rate with sparsity, which is twice that.

    from deployment.market.accelerators import accelerator
    accelerator("h100_sxm").bandwidth    # 3.35e12
"""

import json
import re
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from deployment.hardware import Accelerator
from phases.errors import InputError

FILE = Path(__file__).parent / "data" / "accelerators.json"
_GIB = 2**30
_KNOWN_BY = {
    "allocator": "memory as the runtime offers it to a process",
    "driver": "memory as the vendor's tool shows it, a little above what a process gets",
    "nominal": "memory NOMINAL, as the box says",
}


@lru_cache(maxsize=1)
def accelerators() -> tuple[Accelerator, ...]:
    """All of them, sorted by name."""
    return tuple(sorted((_read(row) for row in _rows()), key=lambda a: a.name))


def accelerator(name: str) -> Accelerator:
    """The accelerator of that name or alias; case, spaces and underscores do not matter.

    Raises InputError with the nearest names.
    """
    key = canonical_name(name)
    if key is None:
        raise InputError(_unknown(name))
    return _by_name()[key]


@lru_cache(maxsize=4096)
def canonical_name(name: str) -> str | None:
    """Our name of what `name` calls, or None: `NVIDIA-H100-80GB-HBM3` is `h100-sxm`."""
    key = _key(name)
    return _names().get(key) or _names().get(re.sub(r"^((nvidia|amd|intel|aws|google|instinct)-)+", "", key))


@lru_cache(maxsize=1)
def _rows() -> list[dict[str, Any]]:
    return list(json.loads(FILE.read_text(encoding="utf-8"))["accelerators"])


def _read(row: dict[str, Any]) -> Accelerator:
    """One entry in SI units; a power that is not published is 0."""
    return Accelerator(
        name=row["name"],
        vendor=row["vendor"],
        memory_bytes=round(row["memory_gib"] * _GIB),
        bandwidth=row["bandwidth_gb_s"] * 1e9,
        flops={precision: tflops * 1e12 for precision, tflops in row["dense_tflops"].items()},
        link_bandwidth=row["link_gb_s"] * 1e9,
        network_bandwidth=row["network_gb_s"] * 1e9,
        link_domain=row["link_domain"],
        power_watts=row["power_watts"] or 0.0,
        source=f"{row['source']}; {_KNOWN_BY[row['memory_known_by']]}",
        compute_capability=row["compute_capability"],
    )


def _key(name: str) -> str:
    return re.sub(r"[\s_]+", "-", name.strip().lower())


@lru_cache(maxsize=1)
def _by_name() -> dict[str, Accelerator]:
    return {a.name: a for a in accelerators()}


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Our name by every name and alias."""
    return {key: row["name"] for row in _rows() for key in (row["name"], *row["aliases"])}


def _unknown(name: str) -> str:
    """What the user may have meant: names that begin alike, then names that look alike."""
    key = _key(name)
    names = sorted({a.name for a in accelerators()})
    begins = [n for n in names if key and n.startswith(key)]
    alike = [_names()[n] for n in get_close_matches(key, _names(), n=4, cutoff=0.5)]
    near = list(dict.fromkeys([*begins, *alike]))[:5]
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names)}"
    return f"unknown accelerator '{name}': {hint}"
