"""Ternary codes at their entropy: a lattice of −1, 0, 1 whose zeros a threshold chooses, rANS, and hyper-coded scales.

    encoded = Ternary(threshold=0.7).encode(latent_OI)
    lattice = Ternary(threshold=0.7).lattice(encoded)              # what a ternary kernel multiplies with

    code = sign(w) where |w| ≥ threshold · γ, else 0;      γ = mean |w| of a group

At threshold ½ that is the lattice of BitNet b1.58 (arXiv 2402.17764), bit for bit. A higher one makes more zeros: a
group's Gaussian weights then have 1.58 bits of entropy at ½, 1.47 at .8, 1.27 at 1.1, so that the threshold buys bytes.
The scale grows with what is left: γ · (mean |w| that is kept here) / (mean |w| that is kept at ½).

Bits a weight: the entropy of the codes of a matrix, some lanes (`entropy`), and `scale_bits` a group.

Shapes: O outputs, I inputs, G groups a row.
"""

from dataclasses import dataclass

import numpy as np
import torch

from phases.bitnet.lattice import LARGEST_SCALE, SMALLEST_STEP, Lattice, groups_of
from phases.compression.codec import Encoded, check_matrix
from phases.compression.entropy import decode_symbols, encode_symbols
from phases.compression.scales import SCALES, code_scales, coded, decode_scales

BITNET = 0.5
"""The threshold of rounding to the nearest of −1, 0, 1."""


@dataclass(frozen=True)
class Ternary:
    """Settings of the codec. Raises `ValueError` for such as make no codec."""

    threshold: float = BITNET
    """Least magnitude of a weight that is not zero, in means of its group."""
    group: int | None = 128
    """Neighbouring weights of a row that share a scale; None: one scale for the matrix."""
    scale_bits: int = 8
    """Of a scale by hyper-compression; 16: float16 as it is."""

    name = "ternary"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.threshold <= 4:
            raise ValueError(f"threshold {self.threshold}: above 0, up to 4")
        if self.group is not None and self.group < 1:
            raise ValueError(f"groups of {self.group} weights: at least 1, or None")
        if self.scale_bits not in (2, 3, 4, 5, 6, 7, 8, 16):
            raise ValueError(f"scales of {self.scale_bits} bits: 2 to 8, or 16")

    @torch.no_grad()
    def round(self, weight_OI: torch.Tensor) -> Lattice:
        """The lattice point that stands for latent weights, its scales in float16."""
        rows_OGS, mask_GS = _grouped(weight_OI.detach().float(), self.group)
        size_OGS = rows_OGS.abs()
        gamma_OG = size_OGS.sum(-1) / mask_GS.sum(-1)
        # The threshold is that of the scale in float16, as the lattice of bitnet has it.
        step_OG1 = gamma_OG.clamp(2 * SMALLEST_STEP, LARGEST_SCALE).half().float()[..., None]
        signs_OGS = rows_OGS.sign()
        # Rounding's own ties, half to even, at ½: a magnitude of exactly half a step is zero.
        kept_OGS = size_OGS / step_OG1 > self.threshold
        plain_OGS = size_OGS / step_OG1 > BITNET
        growth_OG = _mean_of(size_OGS, kept_OGS) / _mean_of(size_OGS, plain_OGS).clamp(min=1e-30)
        growth_OG = torch.where(plain_OGS.any(-1), growth_OG, 1.0)
        scale_OG = (step_OG1[..., 0] * growth_OG).clamp(max=LARGEST_SCALE).half()
        codes_OGS = (signs_OGS * kept_OGS).to(torch.int8)
        scale_OG = torch.where(kept_OGS.any(-1), scale_OG, 0)
        if self.group is None:
            return Lattice(codes_OGS.view(weight_OI.shape), scale_OG, None)
        return Lattice(codes_OGS.flatten(1)[:, : weight_OI.shape[1]].contiguous(), scale_OG, self.group)

    def encode(self, weight_OI: torch.Tensor, importance_I: torch.Tensor | None = None, seed: int = 0) -> Encoded:
        """(O, I) latent weights as a stream and scales. Importances change nothing, nothing is drawn.

        Raises `ValueError` for what is not a finite matrix.
        """
        check_matrix(weight_OI, importance_I)
        return self.store(self.round(weight_OI.cpu()))

    def store(self, lattice: Lattice) -> Encoded:
        """A lattice of this group as it is stored: codes exactly, scales to `scale_bits`."""
        codes = encode_symbols(lattice.codes_OI.cpu() + 1, 3)
        tensors = {"codes": codes, **code_scales(lattice.scale_OG.cpu(), self.scale_bits)}
        return Encoded(self.name, tuple(lattice.codes_OI.shape), tensors)

    def decode(self, encoded: Encoded) -> torch.Tensor:
        """(O, I) float32. Raises `ValueError` for tensors that do not fit the shape or the settings."""
        return self.lattice(encoded).dequantise()

    def lattice(self, encoded: Encoded) -> Lattice:
        """Codes and float16 scales. Raises `ValueError` as `decode` does."""
        if encoded.codec != self.name or len(encoded.shape) != 2 or min(encoded.shape) < 1:
            raise ValueError(f"{encoded.codec} of shape {encoded.shape}: a matrix of {self.name} is needed")
        rows, width = encoded.shape
        groups = (1, 1) if self.group is None else (rows, groups_of(width, self.group))
        hyper = {n: t for n, t in encoded.tensors.items() if n.startswith(SCALES)}
        plain = not coded(groups[0] * groups[1], self.scale_bits)
        wrong = encoded.tensors.keys() ^ ({"codes"} | ({"scales"} if plain else hyper.keys()))
        if wrong or plain == bool(hyper):
            raise ValueError(f"{', '.join(sorted(wrong)) or 'scales'} missing or left over")
        codes_OI = decode_symbols(encoded.tensors["codes"], rows * width, 3, np.int8).sub_(1).view(rows, width)
        if plain:
            scale_OG = encoded.tensors["scales"]
        else:
            scale_OG = decode_scales(hyper, groups[0] * groups[1], self.scale_bits).view(groups)
        if scale_OG.dtype != torch.float16 or tuple(scale_OG.shape) != groups:
            raise ValueError(f"scales {scale_OG.dtype} {tuple(scale_OG.shape)}: float16 {groups} is needed")
        if not torch.isfinite(scale_OG).all() or (scale_OG < 0).any():
            raise ValueError("a scale is negative or not finite")
        return Lattice(codes_OI, scale_OG, self.group)


def _grouped(weight_OI: torch.Tensor, group: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(O, G, S) weights, zeros behind the end of a row, and (G, S) which are real; (1, 1, O · I) for one group."""
    if group is None:
        return weight_OI.reshape(1, 1, -1), torch.ones(1, weight_OI.numel(), device=weight_OI.device)
    width = weight_OI.shape[1]
    pad = groups_of(width, group) * group - width
    mask = torch.nn.functional.pad(torch.ones(width, device=weight_OI.device), (0, pad)).view(-1, group)
    return torch.nn.functional.pad(weight_OI, (0, pad)).view(len(weight_OI), -1, group), mask


def _mean_of(size_OGS: torch.Tensor, chosen_OGS: torch.Tensor) -> torch.Tensor:
    """(O, G) mean of the chosen; 0 where there is none."""
    return (size_OGS * chosen_OGS).sum(-1) / chosen_OGS.sum(-1).clamp(min=1)
