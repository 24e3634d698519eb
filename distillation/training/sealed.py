"""Arrays on the disk under a card that proves them: written whole or not at all, memory-mapped, verified when opened.

seal(out, "rows.json", {"tokens": tokens_NT}, {"block_tokens": 256})      # <out>/tokens.npy, <out>/rows.json
card = unseal(out, "rows.json", "pack the records again")
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phases.errors import DataError
from phases.storage import atomic_directory, sha256_file, sha256_json

HEADER_BYTES = 128
"""Of an .npy file."""


def seal(out: Path, name: str, arrays: Mapping[str, npt.NDArray[Any]], card: Mapping[str, Any]) -> None:
    """Write arrays and their card, with the files' hashes and the digest over it all; an old `out` is replaced."""
    with atomic_directory(out) as folder:
        paths = [folder / f"{array}.npy" for array in arrays]
        for path, array in zip(paths, arrays.values(), strict=True):
            np.save(path, array, allow_pickle=False)
        files = {path.name: sha256_file(path) for path in paths}
        body = {**card, "files": files}
        full = {**body, "digest": sha256_json(body)}
        (folder / name).write_text(json.dumps(full, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def unseal(path: Path, name: str, remedy: str) -> dict[str, Any]:
    """The verified card. Raises `DataError` that names the missing or altered file and says the remedy."""
    try:
        card = json.loads((path / name).read_text(encoding="utf-8"))
        whole = sha256_json({key: value for key, value in card.items() if key != "digest"}) == card["digest"]
        files = dict(card["files"])
    except FileNotFoundError:
        raise DataError(f"{path / name}: missing; {remedy}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        whole, files = False, {}
    if not whole:
        raise DataError(f"{path / name}: truncated or altered; delete {path} and {remedy}")
    for file, digest in files.items():
        if not (path / file).is_file() or sha256_file(path / file) != digest:
            raise DataError(f"{path / file}: missing, altered or truncated; delete {path} and {remedy}")
    return dict(card)


def mapped(path: Path, array: str) -> npt.NDArray[Any]:
    """One array, memory-mapped."""
    return np.load(path / f"{array}.npy", mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
