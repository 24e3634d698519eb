"""Scales by hyper-compression: what the codecs of weights make of their float16 scales.

tensors |= code_scales(scale_OG, bits=8)                # {"scales": …} as it is where coding would not pay
"""

import torch

from phases.bitnet.lattice import LARGEST_SCALE
from phases.compression.codec import Encoded
from phases.compression.hyper import Hyper

SCALES = "scales."
"""Before the names of what coded scales are stored as."""
FEW = 4
"""Scales whose side information would cost what coding saves."""


def scale_codec(bits: int) -> Hyper:
    """Hyper-compression of scales: positive, of one size, in pairs around their mean."""
    return Hyper(bits=bits, dimension=2, group=None, classes=1, centred=True, clip=False)


def coded(count: int, bits: int) -> bool:
    """Whether so many scales are coded at all; 16 bits: float16 as it is."""
    return bits < 16 and count > FEW


def code_scales(scale: torch.Tensor, bits: int) -> dict[str, torch.Tensor]:
    """Float16 scales of any shape as stored tensors, by name."""
    if not coded(scale.numel(), bits):
        return {"scales": scale}
    stored = scale_codec(bits).encode(scale.float().view(1, -1))
    return {f"{SCALES}{name}": tensor for name, tensor in stored.tensors.items()}


def decode_scales(tensors: dict[str, torch.Tensor], count: int, bits: int) -> torch.Tensor:
    """(`count`,) float16, from the tensors whose names begin with `SCALES`. Raises `ValueError` for other tensors."""
    stored = {name.removeprefix(SCALES): tensor for name, tensor in tensors.items()}
    return scale_codec(bits).decode(Encoded("hyper", (1, count), stored))[0].clamp(0, LARGEST_SCALE).half()
