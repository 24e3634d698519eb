"""Hyper-compression (arXiv 2409.00592): a block of weights as a point of a trajectory, of which only θ is stored.

    encoded = Hyper(bits=4).encode(weight_OI, importance_I=hessian_I)       # 4 bits a weight, and scales

    w ≈ centre + scale · stretch^class · p(θ),      p(θ) = 2 frac(½ + (θ − U/2) · a / U) − 1,      θ = 0 … U − 1

The paper's direction a is irrational. Here it is whole, a = (1, g, g², …), so that frac is mod U of integers and exact
for any θ; the points are a lattice of Korobov's through 0, and g is the one whose points keep the most distance. The
paper's classes are boxes of other sizes for weights far out. All have U points; θ and class share the bits of a block.

Relative MSE of Gaussian weights, one scale a matrix of 256 × 256: .0101 at 4 bits (.0111 with one class), .0372 at 3,
.0027 at 5; with a scale for 128 weights .0092 at 4.125 bits. With `stretch` 2 a quarter of the larger box's points
would be points of the smaller one too (.0107). D = 3 has .0088 at 4 bits and a tenth of the speed. The scale is that of
the least expected error, with weights clipped, or that of the largest weight (`clip=False`).

The nearest point of all classes is found exactly, by Σ h (w − ŵ)² with importances h. For D = 2 it is a corner of the
parallelogram around the block, for a lattice basis that is reduced under the h of its columns. Only where that corner
is outside of the box, and for D = 3 and 4, all points are tried.

Shapes: O outputs, I inputs, D weights a block, J blocks a row, G groups a row, S weights a group, U points, B blocks.
"""

import math
from dataclasses import dataclass

import torch

from phases.compression.bits import pack, unpack
from phases.compression.codec import Encoded, check_matrix
from phases.compression.korobov import CHUNK, covering_radius, nearest, points, total

LARGEST, SMALLEST = 65504.0, 2.0**-24
"""Ends of float16."""
LEAST_IMPORTANCE = 1e-2
"""Of a block's largest: so that inputs which no calibration text used are not decoded to anything at all."""
MOMENT = 0.081
"""Mean squared error a dimension of a lattice of density 1: .0833 with square cells, .0802 with hexagons."""
TRIALS, ROUNDS = 12, 2
"""Scales tried at a time, then again between the neighbours of the best."""
LEAST_SCALE = 0.7
"""Of the root mean square: half the width that the largest box has at least."""


@dataclass(frozen=True)
class Hyper:
    """Settings of the codec. Raises `ValueError` for those outside of the ranges named."""

    bits: float = 4
    """A weight, without its share of a scale; `dimension` · `bits` is a whole number up to 16."""
    dimension: int = 2
    """Weights a block, along a row: 2, 3 or 4. The last of a row may be shorter and costs as much."""
    group: int | None = 128
    """Weights of a row that share a scale, whole blocks; None: all of the matrix."""
    classes: int = 2
    """Boxes: 1, 2, 4 or 8, with at least 4 points each."""
    stretch: float = 1.8
    """Of a box over the one before: above 1, up to 8."""
    centred: bool = False
    """Whether boxes lie around the mean of their group, which is stored, instead of around 0."""
    clip: bool = True
    """Whether the largest box may leave weights outside."""

    name = "hyper"

    def __post_init__(self) -> None:
        code = self.dimension * self.bits
        if self.dimension not in (2, 3, 4) or code not in range(2, 17):
            raise ValueError(f"{self.dimension} weights of {self.bits} bits: 2 to 4 weights of 2 to 16 bits together")
        if self.classes not in (1, 2, 4, 8) or 2**code < 4 * self.classes:
            raise ValueError(f"{self.classes} classes in {code:g} bits: 1, 2, 4 or 8 with at least 4 points each")
        if not 1 < self.stretch <= 8:
            raise ValueError(f"stretch {self.stretch}: above 1, up to 8")
        if self.group is not None and (self.group < 1 or self.group % self.dimension):
            raise ValueError(f"groups of {self.group} weights: whole blocks of {self.dimension} are needed")

    @property
    def size(self) -> int:
        """U, the points of a box."""
        return (1 << round(self.dimension * self.bits)) // self.classes

    @property
    def boxes(self) -> list[float]:
        """Half the width of every box, in scales."""
        return [self.stretch**k for k in range(self.classes)]

    def encode(self, weight_OI: torch.Tensor, importance_I: torch.Tensor | None = None, seed: int = 0) -> Encoded:
        """(O, I) weights as packed θ and class, scales, and centres. Nothing is drawn: `seed` is unused.

        Raises `ValueError` for what is not a finite matrix, and for weights that float16 does not reach.
        """
        check_matrix(weight_OI, importance_I)
        weight_OI = weight_OI.detach().float().cpu()
        largest = float(weight_OI.abs().max())
        if largest > LARGEST:
            raise ValueError(f"a weight of size {largest:.6g}: scales are float16 and end at {LARGEST:g}")
        h_I = torch.ones(weight_OI.shape[1]) if importance_I is None else importance_I.detach().cpu().double()
        h_JD = self._blocks((h_I / h_I.max() if h_I.any() else torch.ones_like(h_I)).float()[None])[0]
        most_J1 = h_JD.amax(1, keepdim=True)
        h_JD = h_JD.maximum(LEAST_IMPORTANCE * most_J1)
        centre_OG, scale_OG = self._fitted(weight_OI, h_JD)
        rel_OJD = self._relative(weight_OI, centre_OG, scale_OG)
        near_JD = torch.where(most_J1 > 0, h_JD / most_J1, 1.0).double()
        chunks = torch.split(rel_OJD, max(1, CHUNK // len(near_JD)))
        code_OJ = torch.cat([self._search(chunk, near_JD) for chunk in chunks])
        tensors = {"codes": pack(code_OJ, round(self.dimension * self.bits)), "scales": scale_OG}
        if self.centred:
            tensors["centres"] = centre_OG
        return Encoded(self.name, tuple(weight_OI.shape), tensors)

    def decode(self, encoded: Encoded) -> torch.Tensor:
        """(O, I) float32. Raises `ValueError` for tensors that do not fit the shape or the settings."""
        code_OJ, centre_OG, scale_OG = self._unpacked(encoded)
        rows, blocks = code_OJ.shape
        scale_OJ = self._spread(scale_OG, blocks) * torch.tensor(self.boxes)[code_OJ // self.size]
        unit_OJD = points(self.dimension, self.size)[code_OJ % self.size]
        found_OJD = unit_OJD * scale_OJ[..., None] + self._spread(centre_OG, blocks)[..., None]
        return found_OJD.view(rows, -1)[:, : encoded.shape[1]].contiguous()

    def bounds(self, weight_OI: torch.Tensor, encoded: Encoded) -> torch.Tensor:
        """(O, J): what √Σ (w − ŵ)² of a block is at most; with importances, √(Σ h (w − ŵ)² / max h).

        The covering radius of the points, in the scale of a box, and the way from there to the weights; of all boxes
        the least.
        """
        _, centre_OG, scale_OG = self._unpacked(encoded)
        rel_OJD = self._relative(weight_OI.detach().float().cpu(), centre_OG, scale_OG)
        radius = covering_radius(self.dimension, self.size)
        found = [radius * box + (rel_OJD.abs() - box).clamp_min(0).square().sum(2).sqrt() for box in self.boxes]
        return torch.stack(found).amin(0) * self._spread(scale_OG, rel_OJD.shape[1])

    def _blocks(self, x_OI: torch.Tensor) -> torch.Tensor:
        """(O, J, D), zeros behind the end of a row."""
        padded = torch.nn.functional.pad(x_OI, (0, -x_OI.shape[1] % self.dimension))
        return padded.view(len(x_OI), -1, self.dimension)

    def _groups(self, x_OJD: torch.Tensor) -> torch.Tensor:
        """(O, G, S), zeros behind the end of a row; (1, 1, all) without groups."""
        if self.group is None:
            return x_OJD.reshape(1, 1, -1)
        x_OI = x_OJD.flatten(1)
        return torch.nn.functional.pad(x_OI, (0, -x_OI.shape[1] % self.group)).view(len(x_OI), -1, self.group)

    def _spread(self, x_OG: torch.Tensor, blocks: int) -> torch.Tensor:
        """(O, J) or (1, 1) float32: what belongs to a group, for each of its blocks."""
        if self.group is None:
            return x_OG.float()
        return x_OG.float().repeat_interleave(self.group // self.dimension, 1)[:, :blocks]

    def _relative(self, weight_OI: torch.Tensor, centre_OG: torch.Tensor, scale_OG: torch.Tensor) -> torch.Tensor:
        """(O, J, D) in scales from the centre; 0 where the scale is 0, and behind the end of a row."""
        w_OJD, within_OJD = self._blocks(weight_OI), self._blocks(torch.ones(1, weight_OI.shape[1]))
        centre_OJ1, scale_OJ1 = (self._spread(x, w_OJD.shape[1])[..., None] for x in (centre_OG, scale_OG))
        return torch.where(scale_OJ1 > 0, (w_OJD - centre_OJ1) / scale_OJ1 * within_OJD, 0)

    def _fitted(self, weight_OI: torch.Tensor, h_JD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(O, G) float16 centres and scales."""
        w_OJD = self._blocks(weight_OI)
        within_OJD = self._blocks(torch.ones(1, weight_OI.shape[1])).expand_as(w_OJD)
        w, within, h = (self._groups(x) for x in (w_OJD, within_OJD, h_JD.expand_as(w_OJD)))
        count_OG1 = within.sum(-1, keepdim=True)
        centre_OG1 = (w.sum(-1, keepdim=True) / count_OG1 * self.centred).half()
        size = (w - centre_OG1.float()).abs() * within
        most_OG1 = size.amax(-1, keepdim=True)
        scale = (most_OG1 / self.boxes[-1]).clamp_min(SMALLEST).half()
        if self.clip:
            low = LEAST_SCALE * (size.square().sum(-1, keepdim=True) / count_OG1).sqrt() / self.boxes[-1]
            scale = self._clipping(size, h, low.clamp_min(SMALLEST), most_OG1.clamp_min(SMALLEST))
        return centre_OG1[..., 0], torch.where(most_OG1 > 0, scale, 0).half()[..., 0]

    def _clipping(
        self, w_OGS: torch.Tensor, h_OGS: torch.Tensor, low: torch.Tensor, high: torch.Tensor
    ) -> torch.Tensor:
        """(O, G, 1) the scale from `low` to `high` of the least error: that of the lattice inside, and what is cut off.

        Of a block's boxes the better one counts. A lattice under weights h errs by the geometric mean of h.
        """
        blocks = (*w_OGS.shape[:2], -1, self.dimension)
        mean = h_OGS.view(blocks).prod(-1) ** (1 / self.dimension)
        inside = mean * (4 * MOMENT * self.dimension * self.size ** (-2 / self.dimension))
        # The outermost points are half of their distance away from the edge.
        inner = 1 - self.size ** (-1 / self.dimension)
        best, least = high, torch.full_like(high, math.inf)
        for _ in range(ROUNDS):
            step = (high / low) ** (1 / (TRIALS - 1))
            for k in range(TRIALS):
                scale = (low * step**k).half().float()
                rel = w_OGS / scale
                cut = [total((rel - box * inner).clamp_min(0).square().mul(h_OGS).view(blocks)) for box in self.boxes]
                errors = torch.stack([c + inside * box**2 for c, box in zip(cut, self.boxes, strict=True)]).amin(0)
                error = errors.sum(-1, keepdim=True) * scale**2
                best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
            low, high = (best / step).maximum(low), (best * step).minimum(high)
        return best

    def _search(self, rel_OJD: torch.Tensor, h_JD: torch.Tensor) -> torch.Tensor:
        """(O, J) int64 class · U + θ of the nearest point of all boxes, the largest box first."""
        code_OJ = torch.zeros(rel_OJD.shape[:2], dtype=torch.int64)
        least_OJ = torch.full(rel_OJD.shape[:2], math.inf, dtype=torch.float64)
        for k in reversed(range(self.classes)):
            box = self.boxes[k]
            theta_OJ, error_OJ = nearest(rel_OJD.double() / box, h_JD, self.size, least_OJ / box**2)
            better_OJ = error_OJ * box**2 < least_OJ
            code_OJ = torch.where(better_OJ, k * self.size + theta_OJ, code_OJ)
            least_OJ = torch.where(better_OJ, error_OJ * box**2, least_OJ)
        return code_OJ

    def _unpacked(self, encoded: Encoded) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(O, J) int64 codes, (O, G) centres and scales. Raises `ValueError` as `decode` does."""
        if encoded.codec != self.name or len(encoded.shape) != 2 or min(encoded.shape) < 1:
            raise ValueError(f"{encoded.codec} of shape {encoded.shape} is no matrix that {self.name} encoded")
        rows, width = encoded.shape
        blocks, code = -(-width // self.dimension), round(self.dimension * self.bits)
        groups = (1, 1) if self.group is None else (rows, -(-width // self.group))
        expected = {"codes": (torch.uint8, (-(-rows * blocks * code // 8),)), "scales": (torch.float16, groups)}
        if self.centred:
            expected["centres"] = (torch.float16, groups)
        found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in encoded.tensors.items()}
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        if wrong:
            raise ValueError(f"{', '.join(wrong)} missing, left over or of another size than {encoded.shape} has")
        scale_OG = encoded.tensors["scales"]
        centre_OG = encoded.tensors.get("centres", torch.zeros_like(scale_OG))
        if not torch.isfinite(torch.cat((scale_OG, centre_OG))).all() or (scale_OG < 0).any():
            raise ValueError("a scale is negative, or a scale or a centre not finite")
        codes = unpack(encoded.tensors["codes"], rows * blocks, code, "codes")
        return codes.view(rows, blocks), centre_OG, scale_OG
