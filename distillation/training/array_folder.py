"""Arrays in a sealed folder: written whole or not at all, memory-mapped, verified when opened (`open_sealed`).

write_arrays(out, "rows.json", {"tokens": tokens_NT}, {"block_tokens": 256})      # <out>/tokens.npy, <out>/rows.json
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phases.sealed_folder import seal_folder
from phases.storage import atomic_directory

HEADER_BYTES = 128
"""Of an .npy file."""


class Mapped:
    """Base of a dataclass that maps arrays when they are asked for: another process maps them anew and gets no copy."""

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]


def write_arrays(out: Path, name: str, arrays: Mapping[str, npt.NDArray[Any]], card: Mapping[str, Any]) -> None:
    """Write arrays and their card; an old `out` is replaced."""
    with atomic_directory(out) as folder:
        for array, values in arrays.items():
            np.save(folder / f"{array}.npy", values, allow_pickle=False)
        seal_folder(folder, name, card)


def mapped(path: Path, array: str) -> npt.NDArray[Any]:
    """One array, memory-mapped."""
    return np.load(path / f"{array}.npy", mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
