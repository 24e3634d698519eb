"""Rounding a weight matrix to a lattice: a few levels a weight, one scale a group (BitNet b1.58, arXiv 2402.17764).

    ternary:  γ = mean |W| of a group, codes = clip(round(W / γ), −1, 1)         ({−1, 0, 1}, absmean)
    n bits:   γ = max |W| / (2ⁿ⁻¹ − 1), codes = round(W / γ)                      (absmax, for embeddings and heads)

A group is `group` neighbours of one row (the last of a row may be shorter), or the whole tensor when `group` is None.
Scales are rounded to float16 *before* the codes are chosen, so what is trained, stored and computed with is the same
lattice, and codes and scales can be read back from the dequantised weights without loss.

Shapes: O rows, I columns, G groups a row.
"""

from dataclasses import dataclass

import torch

from phases.errors import CheckpointError

LARGEST_SCALE = 65504.0
"""float16 ends here."""
SMALLEST_STEP = 2.0**-24
"""Spacing of the smallest float16 numbers."""


@dataclass(frozen=True)
class Lattice:
    """A matrix on its lattice: `weight = codes · scale of the group`."""

    codes_OI: torch.Tensor
    """int8: −1, 0, 1 where ternary; −(2ⁿ⁻¹ − 1) … 2ⁿ⁻¹ − 1 for n bits."""
    scale_OG: torch.Tensor
    """float16, ≥ 0; (1, 1) where the whole tensor is one group."""
    group: int | None
    """Weights a scale; None: all of the tensor."""

    def dequantise(self) -> torch.Tensor:
        """(O, I) float32, exactly the products."""
        weight = self.codes_OI.float()
        if self.group is None:
            return weight.mul_(self.scale_OG)
        # In place: the scales are not spread out to a second matrix.
        full = weight.shape[1] // self.group
        weight[:, : full * self.group].view(len(weight), full, self.group).mul_(self.scale_OG[:, :full, None])
        weight[:, full * self.group :].mul_(self.scale_OG[:, full:])
        return weight


def groups_of(width: int, group: int | None) -> int:
    """Groups G in a row of `width` weights."""
    return 1 if group is None else -(-width // group)


def levels(bits: int) -> int:
    """The largest code of a symmetric lattice of `bits` bits."""
    return int(2 ** (bits - 1) - 1)


def ternary(weight_OI: torch.Tensor, group: int | None) -> Lattice:
    """The ternary lattice point of a matrix: absmean scales, round, clip."""
    rows = _rows(weight_OI.detach().float(), group)
    magnitude = rows.abs()
    count = _counts(weight_OI.shape[1], group, rows)
    return _round(weight_OI, rows, magnitude.sum(-1) / count, 1, group)


def absmax(weight_OI: torch.Tensor, bits: int, group: int | None) -> Lattice:
    """The lattice point of a matrix at `bits` bits a weight: the largest of a group keeps the largest code."""
    rows = _rows(weight_OI.detach().float(), group)
    return _round(weight_OI, rows, rows.abs().amax(-1) / levels(bits), levels(bits), group)


def nearest_ternary(weight_OI: torch.Tensor, group: int | None) -> tuple[Lattice, int]:
    """Codes and scales read from weights that lie on a ternary lattice, and how many of them do not."""
    return _nearest(weight_OI, 1, group)


def read_ternary(weight_OI: torch.Tensor, group: int | None, name: str) -> Lattice:
    """Codes and scales of weights that lie on a ternary lattice. Raises `CheckpointError` when they do not."""
    return _read(weight_OI, 1, group, name)


def read_absmax(weight_OI: torch.Tensor, bits: int, group: int | None, name: str) -> Lattice:
    """Codes and scales of weights that lie on an n-bit lattice. Raises `CheckpointError` when they do not."""
    return _read(weight_OI, levels(bits), group, name)


def _read(weight_OI: torch.Tensor, largest: int, group: int | None, name: str) -> Lattice:
    found, off = _nearest(weight_OI, largest, group)
    if off:
        kind = "ternary" if largest == 1 else f"{2 * largest + 1}-level"
        where = "the whole tensor" if group is None else f"groups of {group}"
        raise CheckpointError(
            f"{name}: {off:,} of {weight_OI.numel():,} weights are not on the {kind} lattice with one scale "
            f"for {where}; give a checkpoint that the bitnet phase wrote, and the group that it was written with"
        )
    return found


def _nearest(weight_OI: torch.Tensor, largest: int, group: int | None) -> tuple[Lattice, int]:
    rows = _rows(weight_OI.detach().float(), group)
    found = _round(weight_OI, rows, rows.abs().amax(-1) / largest, largest, group)
    return found, int((found.dequantise() != weight_OI.float()).sum())


def _rows(weight_OI: torch.Tensor, group: int | None) -> torch.Tensor:
    """(O, G, group) with zeros behind the end of a row; (1, 1, O · I) for one group."""
    if group is None:
        return weight_OI.reshape(1, 1, -1)
    width = weight_OI.shape[1]
    padded = torch.nn.functional.pad(weight_OI, (0, groups_of(width, group) * group - width))
    return padded.view(len(weight_OI), -1, group)


def _counts(width: int, group: int | None, rows: torch.Tensor) -> torch.Tensor:
    """(G,) real weights of every group of a row."""
    if group is None:
        return torch.tensor([rows.shape[-1]], device=rows.device)
    starts = torch.arange(rows.shape[1], device=rows.device) * group
    return (width - starts).clamp(max=group)


def _round(
    weight_OI: torch.Tensor, rows: torch.Tensor, scale_OG: torch.Tensor, largest: int, group: int | None
) -> Lattice:
    # Below the smallest scale float16 is too coarse for a group's largest weight to keep the largest code, from which
    # scales are read back.
    scale = scale_OG.clamp(2 * largest * SMALLEST_STEP, LARGEST_SCALE).half()
    codes = (rows / scale.float().unsqueeze(-1)).round_().clamp_(-largest, largest).to(torch.int8)
    scale = torch.where(codes.any(-1), scale, 0)
    codes_OI = codes.reshape(weight_OI.shape) if group is None else codes.flatten(1)[:, : weight_OI.shape[1]]
    return Lattice(codes_OI.contiguous(), scale, group)
