"""A teacher's cache on the disk, verified and memory-mapped.

cache = read_cache(path, student_tokenizer)
ids_PK, share_PK = cache.row(17)                # of the row's weighted positions, in their order
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distillation.cache.codec import Codec, Integers
from distillation.training.array_folder import Mapped, mapped
from distillation.training.row_file import tokenizer_digest
from phases.errors import ConfigError
from phases.sealed_folder import open_sealed

CARD = "cache.json"


@dataclass(frozen=True)
class Cache(Mapped):
    """What one teacher thought of each predicted position of one file of rows."""

    path: Path
    digest: str
    card: Mapping[str, Any]

    @cached_property
    def codec(self) -> Codec:
        """How it is written."""
        return Codec(*self.card["codec"])

    @property
    def ghost(self) -> bool:
        """Whether what is missing to 1 is the mass of all other tokens."""
        return str(self.card["method"]) == "ghost"

    @property
    def rows(self) -> str:
        """Digest of the rows that it was made of."""
        return str(self.card["rows"])

    @property
    def bytes_per_token(self) -> float:
        """On the disk, a stored position."""
        return float(self.card["bytes_per_token"])

    @property
    def tau(self) -> float:
        """Temperature of the stored distributions."""
        return float(self.card["tau"])

    def row(self, index: int) -> tuple[Integers, npt.NDArray[np.float32]]:
        """((P, K) ids, (P, K) shares, 0 where a position has fewer) of a row's weighted positions."""
        begin, end = int(self._begin[index]), int(self._begin[index + 1])
        ids_PK, share_PK = self.codec.decode(self._bits[begin:end], int(self._positions[index]))
        if self.card["method"] == "renormalised":
            share_PK /= share_PK.sum(1, keepdims=True)
        return ids_PK, share_PK

    @cached_property
    def _bits(self) -> npt.NDArray[np.uint8]:
        return mapped(self.path, "bits")

    @cached_property
    def _begin(self) -> npt.NDArray[np.int64]:
        return mapped(self.path, "begin")

    @cached_property
    def _positions(self) -> npt.NDArray[np.int32]:
        return mapped(self.path, "positions")


def read_cache(path: Path, tokenizer: Any) -> Cache:
    """Verify a cache for a student with this tokenizer.

    Raises `DataError` that names the missing or altered file, and `ConfigError` that names both tokenizers where they
    differ.
    """
    card = open_sealed(path, CARD, "write the cache again")
    own = tokenizer_digest(tokenizer)
    if own != card["tokenizer"]:
        raise ConfigError(
            f"{path}: made with the tokenizer {card['tokenizer'][:12]}…, the student's is {own[:12]}…: the same ids "
            "mean other strings; give the student its teacher's tokenizer, or use the cross-tokeniser strategy"
        )
    return Cache(path, str(card["digest"]), card)
