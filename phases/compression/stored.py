"""A whole model as it is stored: every matrix under a codec of its own, shared codebooks once, the rest in float16.

    stored = Stored(codecs, encoded, codebooks, plain)
    stored.bytes, stored.weights()["model.layers.0.mlp.up_proj.weight"]

Matrices under equal `VPTQ` settings share a codebook. What codecs leave is squeezed once more: indices by the entropy
coder where that is smaller, scales of rows by hyper-compression, at `scale_bits` each (`squeezed`, `expanded`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from phases.compression.bits import bits_for, pack, unpack
from phases.compression.codec import Encoded
from phases.compression.entropy import LARGEST_ALPHABET, decode_symbols, encode_symbols
from phases.compression.hyper import Hyper
from phases.compression.scales import SCALES, code_scales, coded, decode_scales
from phases.compression.seedlm import SeedLM
from phases.compression.ternary import Ternary
from phases.compression.vptq import LARGEST, VPTQ
from phases.errors import CheckpointError

Coding = Ternary | VPTQ | SeedLM | Hyper
"""A codec with its settings: how one matrix is stored."""
STREAM = "stream"


@dataclass(frozen=True)
class Stored:
    """A model's weights, encoded."""

    codecs: Mapping[str, Coding]
    """By the name of the weight in the state dict."""
    encoded: Mapping[str, Encoded]
    """Of the same names."""
    codebooks: Mapping[VPTQ, torch.Tensor]
    """(R, K, V) float16 of each setting in use."""
    plain: Mapping[str, torch.Tensor]
    """float16: norms and biases, and matrices that no codec has."""

    @property
    def bytes(self) -> int:
        """Of all tensors, side information included; a file has a header besides."""
        tensors = [t for one in self.encoded.values() for t in one.tensors.values()]
        every = [*tensors, *self.codebooks.values(), *self.plain.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in every)

    def weight(self, name: str) -> torch.Tensor:
        """(O, I) float32 of one matrix. Raises `ValueError` for tensors that do not fit."""
        codec, encoded = self.codecs[name], self.encoded[name]
        if isinstance(codec, VPTQ):
            return codec.decode(expanded(encoded, codec), self.codebooks[codec])
        return codec.decode(encoded)

    def weights(self) -> dict[str, torch.Tensor]:
        """Every weight in float32, decoded."""
        return {name: self.weight(name) for name in self.codecs} | {n: t.float() for n, t in self.plain.items()}


def check_storable(tensors: Mapping[str, torch.Tensor], where: Path) -> None:
    """Raise `CheckpointError` that names the first tensor which float16, of which all scales are, cannot hold."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{where}: {name} is not finite; train it again, or restore it from a copy")
        largest = float(tensor.abs().max()) if tensor.numel() else 0.0
        if largest > LARGEST:
            raise CheckpointError(
                f"{where}: {name} has a number as large as {largest:.4g}, and float16 ends at {LARGEST:.0f}; train it "
                "again with weight decay, or give another checkpoint"
            )


def squeezed(encoded: Encoded, codec: VPTQ, scale_bits: int) -> Encoded:
    """A matrix of VPTQ whose indices and scales take less; scales are rounded by it, indices are not."""
    tensors = dict(encoded.tensors)
    count = codes_of(encoded, codec)
    if codec.codebook_size <= LARGEST_ALPHABET:
        codes_N = unpack(tensors["codes"], count, bits_for(codec.codebook_size), "codes")
        stream = encode_symbols(codes_N, codec.codebook_size)
        if stream.numel() < tensors["codes"].numel():
            del tensors["codes"]
            tensors[STREAM] = stream
    scale_S = tensors.pop("scales")
    tensors |= code_scales(scale_S, scale_bits)
    if coded(scale_S.numel(), scale_bits):
        tensors["scales.bits"] = torch.tensor([scale_bits], dtype=torch.uint8)
    return replace(encoded, tensors=tensors)


def expanded(encoded: Encoded, codec: VPTQ) -> Encoded:
    """What `squeezed` was given, scales as they were rounded. Raises `ValueError` for tensors that do not fit."""
    tensors = dict(encoded.tensors)
    if STREAM in tensors:
        codes_N = decode_symbols(tensors.pop(STREAM), codes_of(encoded, codec), codec.codebook_size)
        tensors["codes"] = pack(codes_N, bits_for(codec.codebook_size))
    hyper = {name: tensors.pop(name) for name in list(tensors) if name.startswith(SCALES)}
    if hyper:
        bits = hyper.pop("scales.bits", torch.zeros(0, dtype=torch.uint8))
        if bits.dtype != torch.uint8 or bits.shape != (1,) or not 2 <= int(bits) <= 8:
            raise ValueError("the bits of the scales are missing or damaged")
        count = encoded.shape[0] if codec.scales == "row" else 1
        tensors["scales"] = decode_scales(hyper, count, int(bits))
    return replace(encoded, tensors=tensors)


def codes_of(encoded: Encoded, codec: VPTQ) -> int:
    """How many indices a matrix of VPTQ has, residual ones with them."""
    rows, width = encoded.shape
    return (1 + codec.residuals) * -(-rows * (width - int(codec.outliers * width)) // codec.vector)
