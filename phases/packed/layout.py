"""How a matrix on its lattice lies in the file: the codes' layout, and the shapes and bytes that follow from it.

    trits   ternary, 5 a byte      (⌈O·I/5⌉,) U8      8bit   embeddings and heads   (O, I) I8
    2bit    ternary, 4 a byte      (⌈O·I/4⌉,) U8      4bit   embeddings and heads   (O, ⌈I/2⌉) U8

Scales are float16 as the lattice has them: (O, G), or (1, 1) where the whole tensor is one group.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from phases.bitnet.lattice import Lattice, groups_of, read_absmax, read_ternary
from phases.packed import trits

TernaryLayout = Literal["trits", "2bit"]
CodesLayout = Literal["trits", "2bit", "8bit", "4bit"]
Shape = tuple[int, int]


@dataclass(frozen=True)
class Codec:
    """Codes to stored tensor and back; shapes are (O, I)."""

    dtype: torch.dtype
    stored: Callable[[Shape], tuple[int, ...]]
    """Shape of the stored tensor."""
    pack: Callable[[torch.Tensor], torch.Tensor]
    check: Callable[[torch.Tensor, Shape], None]
    """Raises `ValueError` for bytes that no codes are packed to."""
    decode: Callable[[torch.Tensor, Shape], torch.Tensor]
    """Of bytes that were checked."""


CODECS: dict[CodesLayout, Codec] = {
    "trits": Codec(
        torch.uint8,
        lambda shape: (trits.bytes_trits(shape[0] * shape[1]),),
        trits.pack_trits,
        trits.check_trits,
        trits.decode_trits,
    ),
    "2bit": Codec(
        torch.uint8,
        lambda shape: (trits.bytes_2bit(shape[0] * shape[1]),),
        trits.pack_2bit,
        trits.check_2bit,
        trits.decode_2bit,
    ),
    "8bit": Codec(
        torch.int8,
        lambda shape: shape,
        lambda codes: codes,
        lambda packed, shape: trits.check_8bit(packed),
        lambda packed, shape: packed,
    ),
    "4bit": Codec(
        torch.uint8,
        lambda shape: (shape[0], -(-shape[1] // 2)),
        trits.pack_4bit,
        lambda packed, shape: trits.check_4bit(packed, shape[1]),
        lambda packed, shape: trits.decode_4bit(packed, shape[1]),
    ),
}


def scale_shape(shape: Shape, group: int | None) -> Shape:
    """(O, G), or (1, 1) for one group a tensor."""
    return (1, 1) if group is None else (shape[0], groups_of(shape[1], group))


def read_lattice(weight_OI: torch.Tensor, layout: CodesLayout, group: int | None, name: str) -> Lattice:
    """The lattice that a checkpoint's weights lie on. Raises `CheckpointError` when they lie on another."""
    if layout in ("trits", "2bit"):
        return read_ternary(weight_OI, group, name)
    return read_absmax(weight_OI, 8 if layout == "8bit" else 4, group, name)
