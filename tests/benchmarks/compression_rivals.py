"""Ways to be small that train nothing: round-to-nearest and bitsandbytes' NF4, every matrix with the embeddings.

    rounded = round_to_nearest(weights, matrices, bits=2, group=128)
    rounded.file_bytes, rounded.weights["model.embed_tokens.weight"]

Bytes are those of one safetensors file, header and all, with one tensor a weight: codes packed to the bit and their
scales one after the other. What is no matrix is in float16, as in the artefact.
"""

import contextlib
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save

from phases.compression.bits import pack

NF4_BLOCK = 64
"""Weights of one scale."""
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Small:
    """A model made small: what it computes with, and what it takes."""

    weights: Weights
    """float32, every weight once."""
    tensor_bytes: int
    file_bytes: int
    """With the header."""


def written(weights: Weights, stored: Weights) -> Small:
    """`stored`: the bytes of each weight, as they would stand in a file."""
    tensor_bytes = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    return Small(weights, tensor_bytes, len(save(dict(stored))))


def unchanged(weights: Weights) -> Small:
    """float32, as they are."""
    return written(weights, {name: weight.contiguous() for name, weight in weights.items()})


def round_to_nearest(
    weights: Weights, matrices: Collection[str], bits: int, group: int, zero_point: bool = False
) -> Small:
    """Groups along a row, a float16 scale each, and with `zero_point` a whole number of `bits` that stands for 0."""
    decoded, stored = {}, {}
    for name, weight in weights.items():
        if name not in matrices:
            stored[name] = weight.half()
            decoded[name] = stored[name].float()
            continue
        parts = [_round(part_OS, bits, zero_point) for part_OS in torch.split(weight, group, 1)]
        decoded[name] = torch.cat([part.decoded_OS for part in parts], 1)
        codes = pack(torch.cat([part.codes_OS for part in parts], 1), bits)
        zeros = pack(torch.cat([part.zero_O for part in parts]), bits) if zero_point else codes[:0]
        stored[name] = _blob(codes, zeros, *(part.scale_O for part in parts))
    return written(decoded, stored)


@dataclass(frozen=True)
class _Rounded:
    codes_OS: torch.Tensor
    """int64 from 0."""
    scale_O: torch.Tensor
    """float16."""
    zero_O: torch.Tensor
    """The code of 0."""
    decoded_OS: torch.Tensor


def _round(part_OS: torch.Tensor, bits: int, zero_point: bool) -> _Rounded:
    """One group of each row. A bit alone is the sign, and the scale then the mean magnitude, which errs least."""
    if bits == 1:
        scale_O1, codes_OS = part_OS.abs().mean(1, keepdim=True).half(), (part_OS >= 0).long()
        decoded_OS = (2 * codes_OS - 1) * scale_O1.float()
        return _Rounded(codes_OS, scale_O1[:, 0], torch.zeros(len(part_OS), dtype=torch.int64), decoded_OS)
    most = 2**bits - 1
    if zero_point:
        low_O1, high_O1 = (part_OS.amin(1, keepdim=True).clamp(max=0), part_OS.amax(1, keepdim=True).clamp(min=0))
        scale_O1 = ((high_O1 - low_O1) / most).clamp(min=2.0**-24).half()
        zero_O1 = (-low_O1 / scale_O1.float()).round().clamp(0, most)
    else:
        half = 2 ** (bits - 1) - 1
        scale_O1 = (part_OS.abs().amax(1, keepdim=True) / half).clamp(min=2.0**-24).half()
        zero_O1 = torch.full_like(scale_O1, half + 1).float()
    codes_OS = ((part_OS / scale_O1.float()).round() + zero_O1).clamp(0, most)
    decoded_OS = (codes_OS - zero_O1) * scale_O1.float()
    return _Rounded(codes_OS.long(), scale_O1[:, 0], zero_O1[:, 0].long(), decoded_OS)


def round_to_nf4(weights: Weights, matrices: Collection[str]) -> Small:
    """bitsandbytes' own functions, scales quantised too (QLoRA's double quantisation), the rest in float16."""
    decoded, stored = {}, {}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from bitsandbytes import functional
    for name, weight in weights.items():
        if name not in matrices:
            stored[name] = weight.half()
            decoded[name] = stored[name].float()
            continue
        # Flat blocks: on a CPU, bitsandbytes 0.50 dequantises some shapes wrongly when they come as matrices.
        short = -weight.numel() % NF4_BLOCK
        flat = torch.nn.functional.pad(weight.flatten(), (0, short)).view(-1, NF4_BLOCK).contiguous()
        codes, state = functional.quantize_4bit(flat, blocksize=NF4_BLOCK, quant_type="nf4", compress_statistics=True)
        decoded[name] = functional.dequantize_4bit(codes, state).flatten()[: weight.numel()].view_as(weight)
        stored[name] = _blob(codes, state.absmax, state.state2.absmax, state.offset)
    return written(decoded, stored)


def _blob(*tensors: torch.Tensor) -> torch.Tensor:
    """Their bytes, one after the other."""
    return torch.cat([_bytes(tensor) for tensor in tensors if tensor.numel()])


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)
