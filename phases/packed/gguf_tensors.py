"""Which GGUF type every tensor of a ternary checkpoint takes so that not one weight changes, and its bytes.

    ternary           TQ2_0 where blocks of 256 fit, else Q4_0 where blocks of 32 do, else F16
    8-bit embeddings  Q8_0 where blocks of 32 fit, else F32
    4-bit embeddings  Q4_0 where blocks of 32 fit, else F32
    matrices else     F16 when that is exact, else F32
    vectors           F32

Scales are float16 and ternary codes ±1, so F16 always holds ternary weights; embeddings need up to 18 bits a product.
"""

from dataclasses import dataclass
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType as Kind

from phases.bitnet.lattice import read_absmax, read_ternary
from phases.bitnet.storage import TernaryFile
from phases.errors import InputError
from phases.packed.gguf_blocks import fits, pack

TernaryType = Literal["auto", "tq2_0", "tq1_0", "q4_0", "f16"]
_PLAIN = (Kind.F16, Kind.F32)


@dataclass(frozen=True)
class GgufTensor:
    """One tensor as it stands in the file."""

    name: str
    kind: Kind
    data: npt.NDArray[Any]
    """Numbers for F16 and F32; else (rows, bytes of a row)."""


def encode(source: str, name: str, tensor: torch.Tensor, file: TernaryFile, wanted: TernaryType) -> GgufTensor:
    """A tensor under its GGUF `name` in its exact type; `source` is its name in the checkpoint.

    Raises `CheckpointError` when it is not on its lattice, `InputError` when `wanted` cannot hold it.
    """
    group, bits = file.quantisation.group, file.quantisation.embedding_bits
    if source in file.ternary:
        kind = ternary_kind(source, tensor.shape[1], group, wanted)
        lattice = read_ternary(tensor, group, source)
    elif source in file.embeddings and bits is not None:
        kind = embedding_kind(tensor.shape[1], group, bits)
        lattice = read_absmax(tensor, bits, group, source)
    else:
        kind, lattice = plain_kind(tensor), None
    packed = lattice is not None and kind not in _PLAIN
    data = pack(lattice, kind) if packed and lattice is not None else _plain(tensor, kind)
    return GgufTensor(name, kind, data)


def ternary_kind(name: str, width: int, group: int | None, wanted: TernaryType) -> Kind:
    """The type of a ternary tensor with rows of `width`. Raises `InputError` when `wanted` cannot hold it."""
    automatic = next((kind for kind in (Kind.TQ2_0, Kind.Q4_0) if fits(kind, width, group)), Kind.F16)
    if wanted == "auto":
        return automatic
    kind = Kind[wanted.upper()]
    if kind is not Kind.F16 and not fits(kind, width, group):
        block = gguf.GGML_QUANT_SIZES[kind][0]
        lattice = "one scale for the whole tensor" if group is None else f"a scale for groups of {group}"
        raise InputError(
            f"{name}: rows of {width} weights with {lattice} do not fall into {kind.name}'s blocks of {block}; "
            f"export with auto (it takes {automatic.name} here), or train with bitnet.quantisation.group a multiple "
            f"of {block} and layer widths that are too"
        )
    return kind


def embedding_kind(width: int, group: int | None, bits: int) -> Kind:
    """The type of an embedding of `bits` bits."""
    kind = Kind.Q8_0 if bits == 8 else Kind.Q4_0
    return kind if fits(kind, width, group) else Kind.F32


def plain_kind(tensor: torch.Tensor) -> Kind:
    """F16 for a matrix that it holds exactly; F32 for others, and for vectors, which llama.cpp wants so."""
    return Kind.F16 if tensor.ndim > 1 and torch.equal(tensor.half().float(), tensor.float()) else Kind.F32


def check_exact(name: str, data: npt.NDArray[Any], kind: Kind, tensor: torch.Tensor) -> None:
    """Assert that gguf's own dequantisation of the bytes is the tensor, every weight."""
    read = gguf.quants.dequantize(data, kind)
    assert np.array_equal(read.reshape(tensor.shape), tensor.float().numpy()), f"{name}: {kind.name} is not exact"


def _plain(tensor: torch.Tensor, kind: Kind) -> npt.NDArray[Any]:
    return tensor.float().numpy().astype(np.float16 if kind is Kind.F16 else np.float32)
