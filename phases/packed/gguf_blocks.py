"""Lattice codes and scales as GGUF blocks, bit for bit (ggml's `block_tq2_0`, `block_tq1_0`, `block_q4_0` …).

    TQ2_0   256 weights a block, 2 bits each, then the float16 scale: 2.0625 bits a weight
    TQ1_0   256 weights a block, 5 weights a byte in base 3, then the scale: 1.6875 bits a weight
    Q4_0    32 weights a block behind their scale, value = (q − 8) · d: 4.5 bits a weight
    Q8_0    32 weights a block behind their scale, value = q · d: 8.5 bits a weight

A block has one scale, so it must not straddle two groups of the lattice. gguf's own `quantize` chooses scales anew
(Q4_0: the largest weight ÷ −8), and a ternary block has no exact place there; here scales are the lattice's.

Shapes: O rows, I columns, K = I / block blocks a row.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from phases.bitnet.lattice import Lattice

Bytes = npt.NDArray[np.uint8]
BASE_3 = (81, 27, 9, 3, 1)
"""Five ternary digits of a TQ1_0 byte, the first weight's digit first."""


def fits(kind: GGMLQuantizationType, width: int, group: int | None) -> bool:
    """Whether rows of `width` weights fall into whole blocks with one scale each."""
    block = GGML_QUANT_SIZES[kind][0]
    one_scale = group is None or group % block == 0 or group >= width
    return width % block == 0 and one_scale


def pack(lattice: Lattice, kind: GGMLQuantizationType) -> Bytes:
    """(O, bytes of a row) of a lattice that `fits`."""
    codes, block = lattice.codes_OI.numpy(), GGML_QUANT_SIZES[kind][0]
    rows, width = codes.shape
    assert fits(kind, width, lattice.group), f"{kind.name} blocks straddle groups of {lattice.group}"
    codes_KB = codes.reshape(-1, block)
    scale_K2 = _block_scales(lattice, width // block).reshape(-1, 1).view(np.uint8)
    if kind is GGMLQuantizationType.TQ2_0:
        parts = [_pack_tq2_0(codes_KB), scale_K2]
    elif kind is GGMLQuantizationType.TQ1_0:
        parts = [_pack_tq1_0(codes_KB), scale_K2]
    elif kind is GGMLQuantizationType.Q4_0:
        parts = [scale_K2, _pack_q4_0(codes_KB)]
    else:
        assert kind is GGMLQuantizationType.Q8_0, kind
        parts = [scale_K2, codes_KB.view(np.uint8)]
    return np.ascontiguousarray(np.concatenate(parts, axis=1).reshape(rows, -1))


def _block_scales(lattice: Lattice, blocks: int) -> npt.NDArray[np.float16]:
    """(O, K) the scale of the group that every block lies in."""
    rows, width = lattice.codes_OI.shape
    scale = lattice.scale_OG.numpy()
    group = width if lattice.group is None else lattice.group
    group_of_block = np.arange(blocks) * (width // blocks) // group
    return np.ascontiguousarray(np.broadcast_to(scale, (rows, scale.shape[1]))[:, group_of_block])


def _pack_tq2_0(codes_KB: npt.NDArray[np.int8]) -> Bytes:
    """(K, 64): byte b of each half holds weights b, 32 + b, 64 + b and 96 + b, the first in its lowest bits."""
    digits = (codes_KB + 1).astype(np.uint8).reshape(-1, 2, 4, 32)
    shifted = digits << np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1)
    packed: Bytes = np.bitwise_or.reduce(shifted, axis=2).reshape(-1, 64)
    return packed


def _pack_tq1_0(codes_KB: npt.NDArray[np.int8]) -> Bytes:
    """(K, 52): 32 and 16 bytes of five weights each, 4 bytes of four."""
    digits = (codes_KB + 1).astype(np.uint16)
    parts = [
        _base_3(digits[:, :160].reshape(-1, 5, 32)),
        _base_3(digits[:, 160:240].reshape(-1, 5, 16)),
        _base_3(digits[:, 240:].reshape(-1, 4, 4)),
    ]
    return np.concatenate(parts, axis=1)


def _base_3(digits_KDB: npt.NDArray[Any]) -> Bytes:
    """(K, B): digits as ⌈n · 256 / 243⌉, from which ggml reads them off by multiplying by 3 and taking the carry."""
    weights = np.array(BASE_3[: digits_KDB.shape[1]], dtype=np.uint16).reshape(-1, 1)
    number = (digits_KDB * weights).sum(axis=1, dtype=np.uint16)
    packed: Bytes = ((number * 256 + 242) // 243).astype(np.uint8)
    return packed


def _pack_q4_0(codes_KB: npt.NDArray[np.int8]) -> Bytes:
    """(K, 16): weight b in the low half of byte b, weight 16 + b in the high half."""
    q = (codes_KB + 8).astype(np.uint8)
    packed: Bytes = q[:, :16] | (q[:, 16:] << np.uint8(4))
    return packed
