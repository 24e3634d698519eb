"""VPTQ: runs of weights as codes of a codebook that the importance of the inputs has shaped (arXiv 2409.17066).

    codec = VPTQ(vector=8, codebook_size=256)
    encoded = codec.encode(weight_OI, importance_I=hessian_I)         # with a codebook of its own
    shared = codec.encode_together(weights, importances)              # one codebook for many matrices, stored once
    codec.decode(shared.matrices["up"], shared.codebook_RKV)

    w[o, i] ≈ scale[o] · Σ_r codebook[r, code[r, n], j]     with 8n + j the place of the weight, row after row

A codebook of its own costs a matrix of 128 × 128 two bits a weight (v 8, k 256), so small models share one. Vectors
lie along a row: the importances h of the inputs then differ within a vector, and a code is chosen by Σ h (w − ŵ)².
On Gaussian weights with log-normal importances (σ = 1) that leaves .21 of the weighted energy at 1 bit, against .28
for the paper's vectors of one input each, whose one importance cannot change a code.

Bits a weight: R ⌈log₂ k⌉ / v, and 16 a row for scales, 16 a weight of an outlier column, ⌈log₂ I⌉ a column's index,
and 16 R k v for a codebook. Results vary with the seed of the codebook: report a spread.

Shapes: O outputs, I inputs, C outlier columns, R codebooks (1 + residuals), K codes, V weights a vector, N vectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from phases.compression.bits import bits_for, pack, unpack
from phases.compression.codec import Encoded, check_matrix
from phases.compression.kmeans import kmeans, means_of_sum, nearest_sum
from phases.compression.vptq_stored import Assigned, Shared, around_one, others, pairs_of

LARGEST = 65504.0
"""float16 ends here."""
SMALLEST = 2.0**-24
SAMPLES_A_CODE = 128
"""Vectors that a codebook is fitted to; the centroids are then refitted to all."""
ROUNDS = 4
"""Of search and refit, where codebooks are summed."""


@dataclass(frozen=True)
class VPTQ:
    """Settings of the codec. Raises `ValueError` for such as make no codec."""

    vector: int = 8
    """Weights a code stands for."""
    codebook_size: int = 256
    """Fitting one takes time as its square: seconds for 256, minutes for 4,096."""
    residuals: int = 0
    """Further codebooks, each for what the ones before leave."""
    outliers: float = 0.0
    """Share of the input columns, those of the largest importance times energy, that float16 keeps."""
    scales: Literal["row", "matrix"] = "row"
    """What has a float16 scale of its own."""
    iterations: int = 50
    """Of Lloyd's, at most."""
    beam: int = 8
    """Partial sums that a search over several codebooks keeps."""

    name = "vptq"

    def __post_init__(self) -> None:
        """Check the ranges."""
        ranges = {"vector": (1, 64), "codebook_size": (2, 65536), "residuals": (0, 7), "iterations": (1, 10_000)}
        for field, (low, high) in {**ranges, "beam": (1, 1024)}.items():
            if not low <= getattr(self, field) <= high:
                raise ValueError(f"{field} {getattr(self, field)}: from {low:,} to {high:,}")
        if not 0 <= self.outliers < 1:
            raise ValueError(f"outliers {self.outliers}: a share of the columns, at least 0 and under 1")
        if self.scales not in ("row", "matrix"):
            raise ValueError(f"scales {self.scales!r}: 'row' or 'matrix'")

    def encode(self, weight_OI: torch.Tensor, importance_I: torch.Tensor | None = None, seed: int = 0) -> Encoded:
        """(O, I) weights with a codebook of their own. Raises `ValueError` for what is not a float16-sized matrix."""
        importances = None if importance_I is None else {"weight": importance_I}
        shared = self.encode_together({"weight": weight_OI}, importances, seed)
        encoded = shared.matrices["weight"]
        return replace(encoded, tensors={**encoded.tensors, "codebook": shared.codebook_RKV})

    def encode_together(
        self,
        weights: Mapping[str, torch.Tensor],
        importances: Mapping[str, torch.Tensor] | None = None,
        seed: int = 0,
    ) -> Shared:
        """Matrices of one codebook, fitted to all of them. Raises `ValueError` as `encode` does.

        A matrix counts in the fit by its number of weights: errors are relative to its own weighted energy.
        """
        book = self.fit(weights, importances, seed)
        pairs = pairs_of(weights, importances)
        return Shared(book, {name: self.assign(weight, book, h) for name, (weight, h) in pairs.items()})

    def fit(
        self,
        weights: Mapping[str, torch.Tensor],
        importances: Mapping[str, torch.Tensor] | None = None,
        seed: int = 0,
    ) -> torch.Tensor:
        """(R, K, V) float16: a codebook for these matrices."""
        pairs = pairs_of(weights, importances).values()
        parts = [self.vectors(weight.detach().cpu(), h)[:2] for weight, h in pairs]
        all_NV, all_weights_NV = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        generator, most = np.random.default_rng(seed), SAMPLES_A_CODE * self.codebook_size
        x, w = all_NV, all_weights_NV
        if len(x) > most:
            drawn = torch.from_numpy(np.sort(generator.choice(len(x), most, replace=False)))
            x, w = x[drawn], w[drawn]
        left, books = x, []
        for _ in range(1 + self.residuals):
            found = kmeans(left, self.codebook_size, w, generator, self.iterations)
            books.append(found.centres_KV)
            left = left - found.centres_KV[found.codes_N]
        codebook_RKV = torch.stack(books)
        for _ in range(ROUNDS if self.residuals else 0):
            codebook_RKV = means_of_sum(x, nearest_sum(x, codebook_RKV, w, self.beam), codebook_RKV, w)
        if len(x) < len(all_NV):
            codes_RN = nearest_sum(all_NV, codebook_RKV, all_weights_NV, self.beam)
            codebook_RKV = means_of_sum(all_NV, codes_RN, codebook_RKV, all_weights_NV)
        return codebook_RKV.clamp(-LARGEST, LARGEST).half()

    def assign(
        self, weight_OI: torch.Tensor, codebook_RKV: torch.Tensor, importance_I: torch.Tensor | None = None
    ) -> Encoded:
        """A matrix as codes of this codebook, which is not among its tensors."""
        self._check_codebook(codebook_RKV)
        weight_OI, codebook_RKV = weight_OI.detach().cpu(), codebook_RKV.cpu()
        columns_C, scale_S = self._layout(weight_OI, importance_I)
        vectors_NV, weights_NV = self._vectors(weight_OI, importance_I, columns_C, scale_S)
        codes_RN = nearest_sum(vectors_NV, codebook_RKV.float(), weights_NV, self.beam)
        tensors = {"codes": pack(codes_RN.flatten(), bits_for(self.codebook_size)), "scales": scale_S}
        if len(columns_C):
            tensors["columns"] = pack(columns_C, bits_for(weight_OI.shape[1]))
            tensors["outliers"] = weight_OI[:, columns_C].half()
        return Encoded(self.name, tuple(weight_OI.shape), tensors)

    def refit(
        self,
        weights: Mapping[str, torch.Tensor],
        shared: Shared,
        importances: Mapping[str, torch.Tensor] | None = None,
    ) -> Shared:
        """The same codes with the centroids that serve these weights best (weighted least squares)."""
        self._check_codebook(shared.codebook_RKV)
        pairs, parts = pairs_of(weights, importances), []
        if pairs.keys() != shared.matrices.keys():
            raise ValueError(f"weights of {sorted(pairs)}, codes of {sorted(shared.matrices)}: the same are needed")
        for name, (weight_OI, h) in pairs.items():
            found = self.unpack(shared.matrices[name])
            if found.shape != tuple(weight_OI.shape):
                raise ValueError(f"{name}: codes of shape {found.shape} for weights {tuple(weight_OI.shape)}")
            vectors = self._vectors(weight_OI.detach().cpu(), h, found.columns_C, found.scale_S1[:, 0])
            parts.append((*vectors, found.codes_RN.T))
        x, w, codes_NR = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        better = means_of_sum(x, codes_NR.T, shared.codebook_RKV.float(), w, sweeps=20)
        return replace(shared, codebook_RKV=better.clamp(-LARGEST, LARGEST).half())

    def decode(self, encoded: Encoded, codebook_RKV: torch.Tensor | None = None) -> torch.Tensor:
        """(O, I) float32. A matrix without a codebook of its own needs the shared one.

        Raises `ValueError` for tensors that do not fit the shape or the settings.
        """
        codebook = encoded.tensors.get("codebook") if codebook_RKV is None else codebook_RKV
        if codebook is None:
            raise ValueError("this matrix shares a codebook: give it")
        self._check_codebook(codebook)
        return self.unpack(encoded).weight(codebook.float())

    def unpack(self, encoded: Encoded) -> Assigned:
        """The codes and all but the codebook, checked. Raises `ValueError` as `decode` does."""
        if encoded.codec != self.name or len(encoded.shape) != 2 or min(encoded.shape) < 1:
            raise ValueError(f"{encoded.codec} of shape {encoded.shape}: a matrix of {self.name} is needed")
        rows, width = encoded.shape
        count, stages = self._outlier_count(width), 1 + self.residuals
        codes = stages * -(-rows * (width - count) // self.vector)
        expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "codes": (torch.uint8, (-(-codes * bits_for(self.codebook_size) // 8),)),
            "scales": (torch.float16, (rows if self.scales == "row" else 1,)),
        }
        if count:
            expected["columns"] = (torch.uint8, (-(-count * bits_for(width) // 8),))
            expected["outliers"] = (torch.float16, (rows, count))
        found = {n: (t.dtype, tuple(t.shape)) for n, t in encoded.tensors.items() if n != "codebook"}
        wrong = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
        if wrong:
            raise ValueError(f"{', '.join(wrong)} missing, left over or of another size than {encoded.shape} has")
        scale_S = encoded.tensors["scales"].float()
        outliers_OC = encoded.tensors["outliers"].float() if count else torch.zeros(rows, 0)
        if not torch.isfinite(scale_S).all() or (scale_S < 0).any() or not torch.isfinite(outliers_OC).all():
            raise ValueError("a scale is negative, or a scale or an outlier not finite")
        codes_RN = _codes(encoded.tensors, "codes", codes, self.codebook_size).view(stages, -1)
        columns_C = _codes(encoded.tensors, "columns", count, width)
        if (columns_C.diff() <= 0).any():
            raise ValueError("the outlier columns do not ascend")
        return Assigned((rows, width), codes_RN, scale_S[:, None], columns_C, outliers_OC)

    def vectors(
        self, weight_OI: torch.Tensor, importance_I: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, V) what codes stand for, (N, V) what errors in it count, (S,) scales, float16; on the weight's device."""
        columns_C, scale_S = self._layout(weight_OI, importance_I)
        return *self._vectors(weight_OI, importance_I, columns_C, scale_S), scale_S

    def _layout(self, weight_OI: torch.Tensor, importance_I: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(C,) outlier columns and (S,) float16 scales: the root mean square of what else there is."""
        check_matrix(weight_OI, importance_I)
        square_OI = weight_OI.detach().double().square()
        if float(square_OI.max()) > LARGEST**2:
            raise ValueError(f"a weight is larger than {LARGEST:.0f}, where float16 ends")
        energy_I = square_OI.sum(0) * around_one(importance_I, weight_OI)
        order_I = energy_I.sort(descending=True, stable=True).indices
        columns_C = order_I[: self._outlier_count(len(order_I))].sort().values
        rest = square_OI[:, others(columns_C, square_OI.shape[1])]
        mean_S = rest.mean(1) if self.scales == "row" else rest.mean()[None]
        # Of zeros the scale is zero, so that they stay exact.
        return columns_C, torch.where(mean_S > 0, mean_S.sqrt().clamp(SMALLEST, LARGEST), 0).half()

    def _vectors(
        self, weight_OI: torch.Tensor, importance_I: torch.Tensor | None, columns_C: torch.Tensor, scale_S: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, V) scaled weights without the outliers, and how much an error in each counts; zeros behind the end."""
        check_matrix(weight_OI, importance_I)
        kept = others(columns_C, weight_OI.shape[1])
        rest, scale_S1 = weight_OI.detach()[:, kept].double(), scale_S.double()[:, None]
        h = around_one(importance_I, weight_OI)[kept]
        scaled = torch.where(scale_S1 > 0, rest / scale_S1, 0)
        mean = (h * rest.square()).mean()
        counts = h * scale_S1.square() / mean if mean > 0 else torch.zeros_like(mean)
        pad = -scaled.numel() % self.vector
        both = (scaled, counts.expand_as(scaled))
        x, w = (torch.nn.functional.pad(t.float().flatten(), (0, pad)).view(-1, self.vector) for t in both)
        return x, w

    def _outlier_count(self, width: int) -> int:
        return int(self.outliers * width)

    def _check_codebook(self, codebook_RKV: torch.Tensor) -> None:
        shape = (1 + self.residuals, self.codebook_size, self.vector)
        if codebook_RKV.dtype != torch.float16 or tuple(codebook_RKV.shape) != shape:
            raise ValueError(f"a codebook {codebook_RKV.dtype} {tuple(codebook_RKV.shape)}: float16 {shape} is needed")
        if not torch.isfinite(codebook_RKV).all():
            raise ValueError("a centroid is not finite")


def _codes(tensors: Mapping[str, torch.Tensor], name: str, count: int, size: int) -> torch.Tensor:
    """(`count`,) int64 under `size`. Raises `ValueError` for others."""
    return unpack(tensors[name], count, bits_for(size), name, size) if count else torch.zeros(0, dtype=torch.int64)
