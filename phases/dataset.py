"""The prepared data on disk: token blocks (memory-mapped), task items, the tokenizer, and a card that proves them.

Written by `phases.data.prepare`, read by every phase and by the evaluation. Layout:

    data.json                       the card: sources, licences, tokens, leakage, file hashes, digest
    tokenizer/                      an HF tokenizer
    blocks/<split>.<stream>.npy     (N, T+1) uint16 or uint32 token ids; stream = text, reasoning, memory or copying
    blocks/<split>.<stream>.mask.npy  (N, T+1) uint8: 1 where the token is to be predicted at full weight
    blocks/<split>.text.bytes.npy   (N,) int64: UTF-8 bytes of the T predicted tokens of each text block
    items/<split>.jsonl             one `Item` a line, all tasks together
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from phases.checkpoint import load_tokenizer
from phases.errors import DataError
from phases.sealed_folder import open_sealed, seal_folder
from phases.tasks.item import Item

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
CARD = "data.json"


@dataclass(frozen=True)
class Dataset:
    """A verified data directory."""

    path: Path
    digest: str
    card: Mapping[str, Any]

    @property
    def block_tokens(self) -> int:
        """T: predicted tokens a block (a row has T + 1)."""
        return int(self.card["block_tokens"])

    @property
    def vocabulary(self) -> int:
        """Entries of the tokenizer, special ones included."""
        return int(self.card["vocabulary"])

    @cached_property
    def tokenizer(self) -> Any:
        """The HF tokenizer."""
        return load_tokenizer(self.path / "tokenizer")

    def streams(self, split: Split) -> list[str]:
        """Names of the token streams of a split."""
        suffix = ".mask.npy"
        paths = (self.path / "blocks").glob(f"{split}.*{suffix}")
        return sorted(p.name[len(split) + 1 : -len(suffix)] for p in paths)

    def blocks(self, split: Split, stream: str) -> npt.NDArray[Any]:
        """(N, T+1) token ids, memory-mapped."""
        return self._array(f"{split}.{stream}.npy")

    def mask(self, split: Split, stream: str) -> npt.NDArray[np.uint8]:
        """(N, T+1) 1 where the token counts at full weight, memory-mapped."""
        return self._array(f"{split}.{stream}.mask.npy")

    def text_bytes(self, split: Split) -> npt.NDArray[np.int64]:
        """(N,) bytes of UTF-8 that the T predicted tokens of each text block stand for."""
        return self._array(f"{split}.text.bytes.npy")

    def items(self, split: Split, speciality: str | None = None) -> list[Item]:
        """Task items of a split, of one speciality or all."""
        with (self.path / "items" / f"{split}.jsonl").open(encoding="utf-8") as file:
            items = [Item.model_validate_json(line) for line in file]
        return [item for item in items if speciality in (None, item.speciality)]

    def _array(self, name: str) -> npt.NDArray[Any]:
        path = self.path / "blocks" / name
        if not path.is_file():
            raise DataError(f"{path}: missing; this data has no such split or stream: prepare it with one")
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def seal_dataset(path: Path, card: Mapping[str, Any]) -> None:
    """Write `data.json` over a filled directory."""
    seal_folder(path, CARD, card)


def open_dataset(path: Path | str) -> Dataset:
    """Verify a data directory. Raises `DataError` that names the missing or altered file."""
    path = Path(path)
    missing = f"{path}: not prepared data ({CARD} is missing); prepare it with `forge run`"
    card = open_sealed(path, CARD, "run again", missing)
    return Dataset(path, str(card["digest"]), card)
