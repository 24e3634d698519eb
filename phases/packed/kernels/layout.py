"""Two bits a weight in memory, in the order in which the kernels read it.

    codes    (tiles, groups, steps, 64) uint8: a tile is 16 rows, a step 16 columns; byte 4 r + j of a step holds
             code + 1 of row r and columns 4 p + j at bits 2 p and 2 p + 1, for p = 0 … 3
    scales   (tiles, groups, 16) float16

So a step is 16 little-endian 32-bit words, a word a row: processors take a step in one 512-bit load, and on a GPU
neighbouring threads read neighbouring words. Every group of a row is padded to full steps and the rows to full tiles
with codes of 0, so any shape and any group fits; groups of a multiple of 16 are padded at the end of a row only.

Cost: 2 bits a weight, 16 a group (2.125 bits with groups of 128). Shapes: O rows, I columns, G groups a row.
"""

from dataclasses import dataclass

import torch

from phases.bitnet.lattice import Lattice, groups_of

ROWS, COLUMNS = 16, 16
WIDEST_GROUP = 2**19
"""Columns of a group until its integer sum could leave int32."""


@dataclass(frozen=True)
class Prepared:
    """A ternary matrix as one kernel wants it; which one says `kernel`."""

    kernel: str
    """Name of the layout: `tiles` (this file) or `int4` (torch's)."""
    codes: torch.Tensor
    """Packed codes."""
    scales: torch.Tensor
    """Scales in the order of the codes."""
    rows: int
    """O."""
    columns: int
    """I."""
    group: int
    """Columns that share a scale; I where the whole tensor does."""

    @property
    def memory_bytes(self) -> int:
        """What codes and scales take in memory."""
        return self.codes.nbytes + self.scales.nbytes

    def to(self, device: torch.device) -> "Prepared":
        """The same on another device."""
        moved = self.codes.to(device), self.scales.to(device)
        return Prepared(self.kernel, *moved, self.rows, self.columns, self.group)


def pack(lattice: Lattice) -> Prepared:
    """The tiles of a ternary lattice, on its device."""
    codes_OI = lattice.codes_OI
    rows, columns = codes_OI.shape
    group = min(lattice.group or columns, columns)
    groups = groups_of(columns, group)
    assert group <= WIDEST_GROUP, f"groups of {group} columns could overflow 32-bit sums; use at most {WIDEST_GROUP}"
    tiles, steps = -(-rows // ROWS), -(-group // COLUMNS)
    codes = _pad(codes_OI, tiles * ROWS, groups * group).view(-1, group)
    codes = _pad(codes, len(codes), steps * COLUMNS).view(tiles, ROWS, groups, steps, 4, 4)
    planes = (codes + 1).to(torch.uint8).permute(0, 2, 3, 1, 5, 4)  # tile, group, step, row, j, p
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=codes.device)
    # The planes of a byte have no bits in common: their sum is their union.
    packed = (planes << shifts).sum(-1, dtype=torch.uint8).reshape(tiles, groups, steps, 4 * ROWS)
    scales = lattice.scale_OG.expand(rows, groups)
    scales = _pad(scales, tiles * ROWS, groups).view(tiles, ROWS, groups).transpose(1, 2)
    return Prepared("tiles", packed, scales.contiguous(), rows, columns, group)


def unpack(prepared: Prepared, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(O, I) the dequantised matrix, exactly the products in float32."""
    tiles, groups, steps, _ = prepared.codes.shape
    # Words: plane p of a row's step is its columns 4 p … 4 p + 3, a byte each, in order.
    words = prepared.codes.view(torch.int32).permute(0, 3, 1, 2).contiguous()
    shifts = torch.arange(0, 8, 2, dtype=torch.int32, device=words.device)
    codes = ((words.unsqueeze(-1) >> shifts) & 0x03030303).view(torch.int8).view(tiles * ROWS, groups, steps * COLUMNS)
    scales = prepared.scales.transpose(1, 2).reshape(tiles * ROWS, groups, 1)
    weight = (codes[..., : prepared.group].float() - 1) * scales.float()
    return weight.flatten(1)[: prepared.rows, : prepared.columns].to(dtype)


def _pad(matrix: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Zeros below and to the right, up to (rows, columns)."""
    height, width = matrix.shape
    if (height, width) == (rows, columns):
        return matrix.contiguous()
    return torch.nn.functional.pad(matrix, (0, columns - width, 0, rows - height)).contiguous()
