"""SeedLM (arXiv 2410.10714): a block of C weights as U(seed) · t, of which only the seed and P coefficients are stored.

    4 bits a weight   SeedLM()                     K 16, C 8, P 3: 16 + 4 + 12 = 32 bits a block
    3 bits a weight   SeedLM(block=12, latent=4)   K 16, C 12, P 4: 16 + 4 + 16 = 36 bits a block

U comes from a shift register (`lfsr.py`); t = q · 2^e · scale with 4-bit q (−8 … 7), a 4-bit exponent a block and one
float16 scale a matrix, its largest weight, so that exponents fit weights of any size. On Gaussian weights at 4 bits the
relative MSE is .0145, at 3 bits .048. Three choices make it so:

- The exponent leaves q its range: for max |t| = m · 2^x, 1 ≤ m < 2, the best of x − 3, x − 2 and x − 1.
- Coefficients are rounded one after the other, and each makes up for the error of those before it (Babai's nearest
  plane); rounded each alone the error is .0150.
- Seeds are ranked by the energy ‖Qᵀw‖² that U's orthonormal basis Q catches (with a small ridge), and only the best
  `refined` are fitted and rounded; the error is that of all seeds fitted (`refined=None`). The energy is ⟨QQᵀ, wwᵀ⟩,
  thus one matrix product for all seeds and a chunk of blocks.

Importances h count the error Σ h (w − ŵ)²: w and U's rows are multiplied by √h in ranking, fit and choice. As blocks of
one column share their h, a basis is made for every column: that costs .05–.15 s a column at K 16, whatever the rows.

Shapes: B blocks, C weights a block, P coefficients, S seeds, N candidates a block, J blocks a row.
"""

import math
from dataclasses import dataclass

import torch

from phases.compression.bits import pack, unpack
from phases.compression.codec import Encoded, check_matrix
from phases.compression.lfsr import check_register, matrices

BITS = 4
"""Of a coefficient, and of an exponent."""
LOWEST, HIGHEST = -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1
OFFSET = 14
"""The stored exponent of a step as large as the scale: weights that an outlier dwarfs need the small ones."""
STEPS = tuple(2.0 ** (exponent - OFFSET) for exponent in range(2**BITS))
"""Of every stored exponent, in units of the scale."""
LARGEST_SCALE, SMALLEST_SCALE = 65504.0, 2.0**-24
"""Ends of float16."""
DEPENDENT = 1e-3
"""A column of U that keeps less of its length beside the columns before it is left out of the fit."""
RIDGE = 5e-4
"""Of the mean square length of U's columns: what coefficients cost in the ranking, as large ones round badly.

Without it every seed is alike to a short last block of no more than P weights, and the worst are chosen.
"""
LEAST_IMPORTANCE = 1e-4
"""Of a block's largest: so that inputs which no calibration text used are not decoded to anything at all."""
CHUNK = 2**22
"""Numbers a temporary tensor (16 MiB), of which a handful are alive at a time."""


@dataclass(frozen=True)
class SeedLM:
    """Settings of the codec. Raises `ValueError` for those outside of the ranges named."""

    register: int = 16
    """Bits of a seed, K: 4 … 16."""
    block: int = 8
    """Weights a block, C: up to 24, along a row; the last of a row may be shorter and costs as much."""
    latent: int = 3
    """Coefficients a block, P: up to 8, and no more than weights."""
    refined: int | None = 16
    """Candidate seeds a block that are fitted; None: all of them, slow. Decoding does not depend on it."""

    name = "seedlm"

    def __post_init__(self) -> None:
        check_register(self.register)
        if not 1 <= self.block <= 24 or not 1 <= self.latent <= min(8, self.block):
            raise ValueError(f"block {self.block}, latent {self.latent}: 1 <= latent <= block <= 24, latent <= 8")
        if self.refined is not None and self.refined < 1:
            raise ValueError(f"{self.refined} refined seeds: give at least 1, or None for all")

    @property
    def bits(self) -> float:
        """Bits a weight of rows that whole blocks fill, without the 2 bytes of the scale."""
        return (self.register + BITS + BITS * self.latent) / self.block

    def encode(self, weight_OI: torch.Tensor, importance_I: torch.Tensor | None = None, seed: int = 0) -> Encoded:
        """(O, I) weights as packed seeds, exponents, coefficients, and the scale. Nothing is drawn: `seed` is unused.

        Raises `ValueError` for what is not a finite matrix, and for weights that no float16 scale reaches.
        """
        weight_OI = weight_OI.detach().float().cpu()
        check_matrix(weight_OI, importance_I)
        largest = float(weight_OI.abs().max())
        if largest > LARGEST_SCALE:
            raise ValueError(f"a weight of size {largest:.6g}: the scale is float16 and ends at {LARGEST_SCALE:g}")
        scale = torch.tensor(max(largest, SMALLEST_SCALE)).half()
        rows, width = weight_OI.shape
        padded = torch.nn.functional.pad(weight_OI / scale.float(), (0, -width % self.block))
        blocks_OJC = padded.view(rows, -1, self.block)
        roots_JC = self._roots(width, importance_I)
        found_OJX = torch.empty(rows, len(roots_JC), 2 + self.latent, dtype=torch.int64)
        for root_C in torch.unique(roots_JC, dim=0):
            alike_J = (roots_JC == root_C).all(1)
            found_BX = self._search(blocks_OJC[:, alike_J].flatten(0, 1), root_C)
            found_OJX[:, alike_J] = found_BX.view(rows, -1, 2 + self.latent)
        tensors = {
            "seeds": pack(found_OJX[:, :, 0], self.register),
            "exponents": pack(found_OJX[:, :, 1], BITS),
            "coefficients": pack(found_OJX[:, :, 2:] - LOWEST, BITS),
            "scale": scale.view(1),
        }
        return Encoded(self.name, (rows, width), tensors)

    def decode(self, encoded: Encoded) -> torch.Tensor:
        """(O, I) float32: products and sums in a fixed order. Raises `ValueError` for tensors that do not fit."""
        rows, width = self._check(encoded)
        count = rows * -(-width // self.block)
        seed_B = unpack(encoded.tensors["seeds"], count, self.register, "seeds")
        exponent_B = unpack(encoded.tensors["exponents"], count, BITS, "exponents")
        code_BP = unpack(encoded.tensors["coefficients"], count * self.latent, BITS, "coefficients") + LOWEST
        if bool((seed_B == 0).any()):
            raise ValueError("a seed is 0: the register would stand still")
        step_B = torch.tensor(STEPS)[exponent_B] * encoded.tensors["scale"].float()
        t_BP = code_BP.view(-1, self.latent) * step_B[:, None]
        tables_SCP = matrices(self.register, self.block, self.latent)
        blocks_BC = torch.zeros(count, self.block)
        for p in range(self.latent):
            blocks_BC += tables_SCP[:, :, p][seed_B] * t_BP[:, p, None]
        return blocks_BC.view(rows, -1)[:, :width].contiguous()

    def _roots(self, width: int, importance_I: torch.Tensor | None) -> torch.Tensor:
        """(J, C) √h, the largest of a block 1; 0 behind the end of a row."""
        # Doubles, as importances are sums over a calibration text and may be of any size.
        real_I = torch.ones(width).double() if importance_I is None else importance_I.detach().double().cpu()
        padding = (0, -width % self.block)
        h_JC = torch.nn.functional.pad(real_I, padding).view(-1, self.block)
        within_JC = torch.nn.functional.pad(torch.ones(width), padding).view(-1, self.block)
        most_J1 = h_JC.amax(1, keepdim=True)
        relative_JC = torch.where(most_J1 > 0, h_JC / most_J1, 1.0).clamp_min(LEAST_IMPORTANCE)
        roots_JC: torch.Tensor = relative_JC.sqrt().float() * within_JC
        return roots_JC

    def _search(self, blocks_BC: torch.Tensor, root_C: torch.Tensor) -> torch.Tensor:
        """(B, 2 + P) int64: seed, stored exponent and coefficients of blocks in units of the scale."""
        tables_SCP = matrices(self.register, self.block, self.latent)
        all_S = torch.arange(1, len(tables_SCP))
        candidates = min(self.refined or len(all_S), len(all_S))
        size = max(1, CHUNK // max(len(tables_SCP), candidates * self.block * self.latent))
        chunks = torch.split(blocks_BC, size)
        if self.refined is None:
            return torch.cat([_fit(w_BC, root_C, tables_SCP, all_S.expand(len(w_BC), -1)) for w_BC in chunks])
        catching_FS = _energies((tables_SCP * root_C[:, None]).permute(2, 1, 0))
        # Written to again and again: fresh memory would cost as much as the product.
        energy_BS = torch.empty(min(size, len(blocks_BC)), len(tables_SCP))
        found = []
        for w_BC in chunks:
            torch.mm(_squares(w_BC * root_C), catching_FS, out=energy_BS[: len(w_BC)])
            seeds_BN = _largest(energy_BS[: len(w_BC)], candidates).clamp_min(1)
            found.append(_fit(w_BC, root_C, tables_SCP, seeds_BN))
        return torch.cat(found)

    def _check(self, encoded: Encoded) -> tuple[int, int]:
        if encoded.codec != self.name or len(encoded.shape) != 2 or min(encoded.shape) < 1:
            raise ValueError(f"{encoded.codec} of shape {encoded.shape} is no matrix that {self.name} encoded")
        if set(encoded.tensors) != {"seeds", "exponents", "coefficients", "scale"}:
            raise ValueError(f"tensors {sorted(encoded.tensors)}: coefficients, exponents, scale, seeds are expected")
        scale = encoded.tensors["scale"]
        if scale.shape != (1,) or scale.dtype != torch.float16 or not 0 < float(scale) <= LARGEST_SCALE:
            raise ValueError(f"the scale is {scale.tolist()} of {scale.dtype}: one finite float16 > 0 is expected")
        return encoded.shape[0], encoded.shape[1]


def _orthonormal(u_PCx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Q (P, C, …) and R (P, P, …) with U = QR by Gram and Schmidt; dependent columns have zeros in Q and 1 in R."""
    q_PCx, r_PPx = torch.empty_like(u_PCx), u_PCx.new_zeros(len(u_PCx), len(u_PCx), *u_PCx.shape[2:])
    for p, column_Cx in enumerate(u_PCx):
        rest_Cx = column_Cx
        for k in range(p):
            r_PPx[k, p] = (q_PCx[k] * rest_Cx).sum(0)
            rest_Cx = rest_Cx - q_PCx[k] * r_PPx[k, p]
        length_x = rest_Cx.square().sum(0).sqrt()
        kept_x = length_x > DEPENDENT * column_Cx.square().sum(0).sqrt()
        r_PPx[p, p] = torch.where(kept_x, length_x, 1.0)
        q_PCx[p] = rest_Cx / r_PPx[p, p] * kept_x
    return q_PCx, r_PPx


def _energies(u_PCS: torch.Tensor) -> torch.Tensor:
    """(C(C+1)/2, S) the upper half of QQᵀ of every seed, row by row, as `_squares` has that of wwᵀ."""
    latent, block, seeds = u_PCS.shape
    ridge = math.sqrt(RIDGE * float(u_PCS.square().sum(1).mean()))
    below_PPS = (ridge * torch.eye(latent))[:, :, None].expand(-1, -1, seeds)
    q_PCS = _orthonormal(torch.cat((u_PCS, below_PPS), 1))[0][:, :block]
    return torch.cat([(q_PCS[:, c, None] * q_PCS[:, c:]).sum(0) for c in range(block)])


def _squares(w_BC: torch.Tensor) -> torch.Tensor:
    """(B, C(C+1)/2) products of any two weights of a block, twice those of different ones."""
    doubled = torch.cat([w_BC[:, c, None] * w_BC[:, c:] * 2 for c in range(w_BC.shape[1])], 1)
    first, second = torch.triu_indices(w_BC.shape[1], w_BC.shape[1])
    return doubled * torch.where(first == second, 0.5, 1.0)


def _largest(energy_BS: torch.Tensor, count: int) -> torch.Tensor:
    """(B, N) seeds of the `count` largest energies: they lie in the groups of the `count` largest maxima."""
    groups = 2 ** (energy_BS.shape[1].bit_length() // 2)
    energy_BGx = energy_BS.view(len(energy_BS), groups, -1)
    chosen_BG = energy_BGx.amax(2).topk(min(count, groups), 1).indices
    within_BGx = energy_BGx.gather(1, chosen_BG[:, :, None].expand(-1, -1, energy_BGx.shape[2]))
    found_BN = within_BGx.flatten(1).topk(count, 1).indices
    each = energy_BGx.shape[2]
    return chosen_BG.gather(1, found_BN // each) * each + found_BN % each


def _fit(w_BC: torch.Tensor, root_C: torch.Tensor, tables_SCP: torch.Tensor, seeds_BN: torch.Tensor) -> torch.Tensor:
    """(B, 2 + P) int64: the candidate with the least error after rounding; coefficients 0 where none beats them."""
    u_PCBN = (tables_SCP[seeds_BN] * root_C[:, None]).permute(3, 2, 0, 1).contiguous()
    q_PCBN, r_PPBN = _orthonormal(u_PCBN)
    target_CBN = (w_BC * root_C).T[:, :, None]
    z_PBN = (q_PCBN * target_CBN).sum(1)
    t_PBN = _upward(z_PBN, r_PPBN, rounded=False)
    power_BN = torch.frexp(t_PBN.abs().amax(0)).exponent - 1 + OFFSET
    least_B = target_CBN.square().sum(0).squeeze(1)
    best_BX = torch.tensor([1] + [0] * (1 + len(u_PCBN))).repeat(len(w_BC), 1)
    for below in (2, 1, 3):
        exponent_BN = (power_BN - below).clamp(0, 2**BITS - 1)
        step_BN = torch.tensor(STEPS)[exponent_BN]
        code_PBN = _upward(z_PBN / step_BN, r_PPBN, rounded=True)
        wrong_CBN = target_CBN - step_BN * (u_PCBN * code_PBN[:, None]).sum(0)
        error_B, n_B = wrong_CBN.square().sum(0).min(1)
        one_B = torch.arange(len(n_B))
        found_BX = torch.stack((seeds_BN[one_B, n_B], exponent_BN[one_B, n_B], *code_PBN[:, one_B, n_B].long()), 1)
        best_BX = torch.where((error_B < least_B)[:, None], found_BX, best_BX)
        least_B = torch.minimum(least_B, error_B)
    return best_BX


def _upward(z_Px: torch.Tensor, r_PPx: torch.Tensor, rounded: bool) -> torch.Tensor:
    """(P, …) solution of R t = z from the last row up; `rounded` to codes on the way (Babai's nearest plane)."""
    t_Px = torch.zeros_like(z_Px)
    for p in reversed(range(len(z_Px))):
        rest_x = (z_Px[p] - (r_PPx[p] * t_Px).sum(0)) / r_PPx[p, p]
        t_Px[p] = rest_x.round().clamp(LOWEST, HIGHEST) if rounded else rest_x
    return t_Px
