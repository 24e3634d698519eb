"""Rows of tokens on the disk: what a student trains on, and what a teacher's distributions are stored for.

`rows.pack_records` writes them, `open_rows(path)` verifies and opens them:

    tokens.npy   (N, T+1) uint16 or uint32 token ids
    weight.npy   (N, T) float32: weight of predicting tokens[:, 1:], 0 where nothing is learnt
    example.npy  (N, T) int32: which example a predicted token is of; −1 for none, and in rows of text
    rows.json    the card: digests of files and tokenizer, counts
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phases.errors import DataError
from phases.storage import atomic_directory, sha256_file, sha256_json

CARD = "rows.json"


@dataclass(frozen=True)
class RowFile:
    """Verified rows on the disk."""

    path: Path
    digest: str
    card: Mapping[str, Any]

    @property
    def block_tokens(self) -> int:
        """T."""
        return int(self.card["block_tokens"])

    @property
    def tokenizer(self) -> str:
        """Digest of the tokenizer's vocabulary."""
        return str(self.card["tokenizer"])

    def __len__(self) -> int:
        return int(self.card["rows"])

    @cached_property
    def tokens_NT(self) -> npt.NDArray[Any]:
        """(N, T+1) token ids, memory-mapped."""
        return self._array("tokens.npy")

    @cached_property
    def weight_NT(self) -> npt.NDArray[np.float32]:
        """(N, T) weight of predicting tokens[:, 1:], memory-mapped."""
        return self._array("weight.npy")

    @cached_property
    def example_NT(self) -> npt.NDArray[np.int32]:
        """(N, T) which example a predicted token is of, memory-mapped; the same indices whatever the tokenizer."""
        return self._array("example.npy")

    def _array(self, name: str) -> npt.NDArray[Any]:
        return np.load(self.path / name, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of which string each id stands for: what teacher and student have to agree on."""
    return sha256_json(sorted(tokenizer.get_vocab().items()))


def write_rows(out: Path, arrays: Mapping[str, npt.NDArray[Any]], card: Mapping[str, Any]) -> RowFile:
    """Write rows atomically: `arrays` by name, and the card over them."""
    with atomic_directory(out) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        body = {**card, "files": {f"{name}.npy": sha256_file(folder / f"{name}.npy") for name in arrays}}
        full = {**body, "digest": sha256_json(body)}
        (folder / CARD).write_text(json.dumps(full, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return open_rows(out)


def open_rows(path: Path) -> RowFile:
    """Verify rows on the disk. Raises `DataError` that names the missing or altered file."""
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        body = {key: value for key, value in card.items() if key != "digest"}
        whole = sha256_json(body) == card["digest"]
        files = dict(card["files"])
    except FileNotFoundError:
        raise DataError(f"{path}: no packed rows ({CARD} is missing); pack the records again") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path / CARD}: truncated or altered; delete {path} and pack the records again") from None
    for name, digest in files.items():
        if not (path / name).is_file() or sha256_file(path / name) != digest:
            whole = False
    if not whole:
        raise DataError(f"{path}: altered or truncated; delete it and pack the records again")
    return RowFile(path, str(card["digest"]), card)
