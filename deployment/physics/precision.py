"""In which format the layers are multiplied: that of the weights where the tensor cores know it, else 16 bits.

Weights of 4 bits on an accelerator without fp4 (AWQ, GPTQ, MXFP4 on a Hopper) are unpacked to 16 bits on the way, which
saves reading and nothing else (Frantar et al. 2024, MARLIN, arXiv 2408.11743).
"""

from functools import lru_cache

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.weights import PRECISION_BITS, REMEMBERED
from deployment.serving import Serving
from phases.errors import InputError


@lru_cache(REMEMBERED)
def weight_format(model: Model, serving: Serving) -> str:
    """Format of most of the weights: `bf16`, `fp8`, `int8`, `int4`, `nvfp4` or `mxfp4`."""
    if serving.precision != "stored":
        return serving.precision
    group = max(model.layers, key=lambda g: g.count * (g.mixer_parameters + g.experts * g.expert_parameters))
    own = group.expert_bits if group.experts else group.dense_bits
    bits = model.stored_bits if own is None else own
    if bits > 12:
        return "bf16"
    if bits > 6:
        return "fp8"
    return next((name for name in ("nvfp4", "mxfp4") if abs(PRECISION_BITS[name] - bits) < 1e-6), "int4")


def compute_format(model: Model, accelerator: Accelerator, serving: Serving) -> str:
    """Key of `Accelerator.flops`."""
    wanted = {"nvfp4": "fp4", "mxfp4": "fp4", "int4": "bf16"}.get(kept := weight_format(model, serving), kept)
    return wanted if wanted in accelerator.flops else accelerator.half


def unpacked(model: Model, accelerator: Accelerator, serving: Serving) -> bool:
    """Whether weights are narrower than what they are multiplied in."""
    kept, used = weight_format(model, serving), compute_format(model, accelerator, serving)
    return used == accelerator.half and kept != "bf16"


def peak_flops(accelerator: Accelerator, name: str) -> float:
    """Dense FLOP/s; raises InputError where the accelerator has no figure even for 16 bits."""
    if name not in accelerator.flops:
        raise InputError(f"{accelerator.name}: its {name} FLOP/s are not known, so no time can be given")
    return accelerator.flops[name]
