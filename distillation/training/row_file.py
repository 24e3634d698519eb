"""Rows of tokens on the disk: what a student trains on, and what a teacher's distributions are stored for.

`rows.pack_records` writes them, `open_rows(path)` verifies and opens them:

    tokens.npy   (N, T+1) uint16 or uint32 token ids
    weight.npy   (N, T) float32: weight of predicting tokens[:, 1:], 0 where nothing is learnt
    example.npy  (N, T) int32: which example a predicted token is of; −1 for none, and in rows of text
    rows.json    the card: digests of files and tokenizer, counts
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distillation.training.array_folder import Mapped, mapped, write_arrays
from phases.sealed_folder import open_sealed
from phases.storage import sha256_json

CARD = "rows.json"


@dataclass(frozen=True)
class RowFile(Mapped):
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
        return mapped(self.path, "tokens")

    @cached_property
    def weight_NT(self) -> npt.NDArray[np.float32]:
        """(N, T) weight of predicting tokens[:, 1:], memory-mapped."""
        return mapped(self.path, "weight")

    @cached_property
    def example_NT(self) -> npt.NDArray[np.int32]:
        """(N, T) which example a predicted token is of, memory-mapped; the same indices whatever the tokenizer."""
        return mapped(self.path, "example")


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of which string each id stands for: what teacher and student have to agree on."""
    return sha256_json(sorted(tokenizer.get_vocab().items()))


def write_rows(out: Path, arrays: Mapping[str, npt.NDArray[Any]], card: Mapping[str, Any]) -> RowFile:
    """Write rows atomically: `arrays` by name, and the card over them."""
    write_arrays(out, CARD, arrays, card)
    return open_rows(out)


def open_rows(path: Path) -> RowFile:
    """Verify rows on the disk. Raises `DataError` that names the missing or altered file."""
    card = open_sealed(path, CARD, "pack the records again")
    return RowFile(path, str(card["digest"]), card)
