"""Stored matrices of which single rows can be had: what embeddings, heads and layers keep in memory.

    matrix = rows_of(codec, encoded, codebook_RKV)
    matrix.rows(torch.tensor([5, 17]))                  # (2, I) float32, nothing else is decoded
    matrix.rows(slice(0, 512))

All give the weights of `codec.decode`, bit for bit. They stay on the processor, and what is made goes where it is
used. In memory: VPTQ a byte a code where a codebook has up to 256, ternary codes 2 bits, SeedLM and hyper-compression
what the file has.

Shapes: O rows, I columns, N rows that are asked for, K columns that are no outliers, R codebooks, V weights a vector.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from phases.bitnet.lattice import Lattice
from phases.compression.bits import pack
from phases.compression.codec import Encoded
from phases.compression.file_format import numbers_of_a_row
from phases.compression.hyper import Hyper
from phases.compression.kmeans import sum_of
from phases.compression.seedlm import SeedLM
from phases.compression.stored import Coding, expanded
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.compression.vptq_stored import Assigned, others
from phases.packed.trits import QUARTERS, decode_2bit, pack_2bit

Index = torch.Tensor | slice
"""(N,) int64 row numbers, or neighbouring rows."""


class Rows(Protocol):
    """A matrix, kept as small as it can be used."""

    @property
    def shape(self) -> tuple[int, int]:
        """(O, I)."""
        ...

    @property
    def bytes(self) -> int:
        """In memory."""
        ...

    def rows(self, index: Index) -> torch.Tensor:
        """(N, I) float32 on the processor. Raises `IndexError` for rows that there are not."""
        ...


def rows_of(codec: Coding, encoded: Encoded, codebook_RKV: torch.Tensor | None = None) -> Rows:
    """A matrix as it is kept; the codebook in float32, so that all matrices keep the same one.

    Raises `ValueError` for tensors that do not fit the codec or the shape.
    """
    if isinstance(codec, Ternary):
        return TernaryRows(codec.lattice(encoded))
    if isinstance(codec, VPTQ):
        assert codebook_RKV is not None, "there is one for all settings in use"
        return VectorRows(codec.unpack(expanded(encoded, codec)), codebook_RKV)
    codec.decode(encoded)  # whether it can be
    return CodedRows(codec, encoded)


class TernaryRows:
    """Codes at 2 bits, whole bytes a row, and float16 scales."""

    def __init__(self, lattice: Lattice) -> None:
        rows, width = self.shape = (lattice.codes_OI.shape[0], lattice.codes_OI.shape[1])
        self.group, self.scale_OG = lattice.group, lattice.scale_OG
        padded = torch.nn.functional.pad(lattice.codes_OI, (0, -width % QUARTERS))
        self.codes_OB = pack_2bit(padded).view(rows, -1)

    @property
    def bytes(self) -> int:
        """In memory."""
        return self.codes_OB.nbytes + self.scale_OG.nbytes

    def rows(self, index: Index) -> torch.Tensor:
        """(N, I) float32."""
        codes_NB = _take(self.codes_OB, index)
        codes_NI = decode_2bit(codes_NB.flatten(), (len(codes_NB), QUARTERS * codes_NB.shape[1]))[:, : self.shape[1]]
        scale = self.scale_OG if self.group is None else _take(self.scale_OG, index)
        return Lattice(codes_NI, scale, self.group).dequantise()


class VectorRows:
    """Codes of VPTQ in whole bytes, and the codebook that it shares."""

    def __init__(self, found: Assigned, codebook_RKV: torch.Tensor) -> None:
        self.shape = found.shape
        size = codebook_RKV.shape[1]
        narrow = torch.uint8 if size <= 2**8 else torch.int16 if size <= 2**15 else torch.int32
        self.codes_RN = found.codes_RN.to(narrow)
        self.codebook_RKV = codebook_RKV
        self.scale_S1, self.outliers_OC = found.scale_S1.half(), found.outliers_OC.half()
        kept_K = others(found.columns_C, found.shape[1])
        self.kept = len(kept_K)
        self.order_I = torch.cat((kept_K, found.columns_C)).argsort() if len(found.columns_C) else found.columns_C

    @property
    def bytes(self) -> int:
        """In memory, the codebook left out."""
        own = (self.codes_RN, self.scale_S1, self.outliers_OC, self.order_I)
        return sum(tensor.nbytes for tensor in own)

    def rows(self, index: Index) -> torch.Tensor:
        """(N, I) float32."""
        if isinstance(index, slice):
            start, stop, _ = index.indices(self.shape[0])
            rest_NK = self._neighbours(start, max(0, stop - start))
        else:
            rest_NK = self._single(_checked(index, self.shape[0]))
        rest_NK *= (self.scale_S1 if len(self.scale_S1) == 1 else _take(self.scale_S1, index)).float()
        if self.kept == self.shape[1]:
            return rest_NK
        return torch.cat((rest_NK, _take(self.outliers_OC, index).float()), 1)[:, self.order_I]

    def _neighbours(self, start: int, count: int) -> torch.Tensor:
        """(N, K) without scales: vectors run on from row to row, so the first may begin before."""
        vector, first, numbers = self.codebook_RKV.shape[2], start * self.kept, count * self.kept
        low = first // vector
        codes_RN = self.codes_RN[:, low : -(-(first + numbers) // vector)].int()
        flat = sum_of(self.codebook_RKV, codes_RN).flatten()
        begin = first - low * vector
        return flat[begin : begin + numbers].view(count, self.kept)

    def _single(self, index_N: torch.Tensor) -> torch.Tensor:
        """(N, K) without scales, weight by weight."""
        vector = self.codebook_RKV.shape[2]
        place_NK = index_N[:, None] * self.kept + torch.arange(self.kept)
        which_NK, within_NK = place_NK // vector, place_NK % vector
        total_NK = torch.zeros(place_NK.shape)
        for book_KV, codes_N in zip(self.codebook_RKV, self.codes_RN, strict=True):
            total_NK += book_KV[codes_N[which_NK].long(), within_NK]
        return total_NK


@dataclass(frozen=True, eq=False)
class CodedRows:
    """SeedLM or hyper-compression as in the file; rows are cut out and decoded at each call."""

    codec: SeedLM | Hyper
    encoded: Encoded

    @property
    def shape(self) -> tuple[int, int]:
        """(O, I)."""
        return self.encoded.shape[0], self.encoded.shape[1]

    @property
    def bytes(self) -> int:
        """In memory."""
        return self.encoded.bytes

    def rows(self, index: Index) -> torch.Tensor:
        """(N, I) float32."""
        rows, width = self.shape
        index_N = torch.arange(rows)[index] if isinstance(index, slice) else _checked(index, rows)
        if not len(index_N):
            return torch.zeros(0, width)
        if isinstance(index, slice) and len(index_N) == rows:
            return self.codec.decode(self.encoded)
        tensors = dict(self.encoded.tensors)
        for name, (count, bits) in numbers_of_a_row(self.codec, width).items():
            place_NX = index_N[:, None] * count + torch.arange(count)
            tensors[name] = pack(_numbers(tensors[name], place_NX, bits), bits)
        if isinstance(self.codec, Hyper) and self.codec.group is not None:
            tensors |= {name: tensors[name][index_N] for name in ("scales", "centres") if name in tensors}
        return self.codec.decode(replace(self.encoded, shape=(len(index_N), width), tensors=tensors))


def _numbers(packed: torch.Tensor, place_N: torch.Tensor, bits: int) -> torch.Tensor:
    """Packed numbers at some places, as `bits.pack` has them; of its shape, int64."""
    raw, first = packed.numpy(), place_N.numpy() * bits
    found = np.zeros_like(first)
    for k in range((bits + 7) // 8 + 1):
        # Behind the end there are none of its bits, and so any byte will do.
        found |= np.take(raw, first // 8 + k, mode="clip").astype(np.int64) << 8 * k
    return torch.from_numpy(found >> first % 8 & (1 << bits) - 1)


def _take(matrix: torch.Tensor, index: Index) -> torch.Tensor:
    # Not by indexing with the tensor: it takes negative rows from the end.
    return matrix[index] if isinstance(index, slice) else matrix.index_select(0, index)


def _checked(index_N: torch.Tensor, rows: int) -> torch.Tensor:
    if len(index_N) and not 0 <= int(index_N.min()) <= int(index_N.max()) < rows:
        raise IndexError(f"rows {int(index_N.min())} to {int(index_N.max())} of {rows}")
    return index_N
