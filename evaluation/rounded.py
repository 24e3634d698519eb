"""What the parent becomes without training: rounded to the ternary lattice, and by bitsandbytes to NF4 and int8.

Models are rounded and dequantised in memory, so that they are measured as any other; bytes are those that their
weights would take in a file: codes and scales, with what is not quantised (embeddings, norms) in float16, as
bitsandbytes leaves it.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any, Literal

import torch

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.tensors import ternary_names

NF4_BLOCK = 64
"""Weights of one scale in bitsandbytes' NF4."""


def round_to_ternary(model: Any, quantisation: Quantisation) -> Any:
    """The model on the same lattice as ours, nothing trained: the control at equal bytes."""
    Quantised(model, quantisation).fold()
    return model


@torch.no_grad()
def round_by_bitsandbytes(model: Any, kind: Literal["nf4", "int8"]) -> tuple[Any, int]:
    """The model with every linear layer but the head through bitsandbytes' own functions, and the weights' bytes."""
    names = set(ternary_names(model))
    size = 0
    with _quietly():
        for name, parameter in model.named_parameters():
            if name in names:
                rounded, taken = (_nf4 if kind == "nf4" else _int8)(parameter)
                parameter.copy_(rounded)
                size += taken
            else:
                parameter.copy_(parameter.half())
                size += 2 * parameter.numel()
    return model, size


def _nf4(weight_OI: torch.Tensor) -> tuple[torch.Tensor, int]:
    from bitsandbytes import functional

    # Flat blocks: on a CPU, bitsandbytes 0.50 dequantises some shapes wrongly when they come as matrices.
    short = -weight_OI.numel() % NF4_BLOCK
    flat = torch.nn.functional.pad(weight_OI.flatten(), (0, short)).view(-1, NF4_BLOCK).contiguous()
    codes, state = functional.quantize_4bit(flat, blocksize=NF4_BLOCK, quant_type="nf4")
    rounded = functional.dequantize_4bit(codes, state).flatten()[: weight_OI.numel()].view_as(weight_OI)
    return rounded, codes.numel() * codes.element_size() + state.absmax.numel() * state.absmax.element_size()


def _int8(weight_OI: torch.Tensor) -> tuple[torch.Tensor, int]:
    from bitsandbytes import functional

    codes, scale_O, _ = functional.int8_vectorwise_quant(weight_OI.half())
    rounded = codes.float() * (scale_O.float().unsqueeze(1) / 127)
    return rounded, codes.numel() + scale_O.numel() * scale_O.element_size()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """bitsandbytes says at its first import on a CPU that an optional package for a faster matmul is not there."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
