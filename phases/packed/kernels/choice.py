"""Which kernel runs, chosen once for a process and device, and said in the log `phases.packed`."""

import functools
import importlib.util
import logging
from typing import Literal, Protocol

import torch

from phases.bitnet.lattice import Lattice
from phases.errors import MissingDependency
from phases.packed.kernels.activations import Activations
from phases.packed.kernels.exact import ExactKernel
from phases.packed.kernels.int4 import Int4Kernel
from phases.packed.kernels.layout import Prepared
from phases.packed.kernels.native import INSTRUCTIONS, NativeKernel

Preference = Literal["auto", "exact", "native", "int4", "triton"]

log = logging.getLogger("phases.packed")


class Kernel(Protocol):
    """A way to multiply with a ternary matrix. It has no state of its own, so one serves all layers."""

    @property
    def name(self) -> str:
        """What `choose_kernel` calls it."""

    @property
    def activations(self) -> str:
        """`int8` or `exact`."""

    def prepare(self, lattice: Lattice) -> Prepared:
        """The matrix as the kernel wants it, on the lattice's device."""

    def linear(self, x: torch.Tensor, prepared: Prepared, bias: torch.Tensor | None = None) -> torch.Tensor:
        """(…, I) → (…, O) in the type of `x`, for what this kernel prepared."""


def choose_kernel(device: torch.device, preference: Preference = "auto", activations: Activations = "int8") -> Kernel:
    """The kernel of a device; `auto` is the fastest that there is and that computes with these activations.

    `activations` is a property of the model (`Quantisation.activations`), not of the machine: with `exact` the
    integer kernels are out. Raises `MissingDependency` with the line that mends it when a named kernel is not there.
    """
    return _chosen(device.type, preference, activations)


@functools.cache
def _chosen(device: str, preference: Preference, activations: Activations) -> Kernel:
    kernel, why = _automatic(device, activations) if preference == "auto" else _named(device, preference, activations)
    log.info("ternary matmul on %s: %s, %s activations%s", device, kernel.name, activations, f" ({why})" if why else "")
    return kernel


def _automatic(device: str, activations: Activations) -> tuple[Kernel, str]:
    if device == "cuda" and importlib.util.find_spec("triton"):
        return _named(device, "triton", activations)
    if device != "cpu" or activations == "exact":
        return ExactKernel(activations), "unpacks the weights at every call"
    try:
        return _named(device, "native", activations)
    except MissingDependency as error:
        log.warning("the fast ternary kernel cannot be built, torch's 4-bit one runs instead: %s", error)
        return _named(device, "int4", activations)


def _named(device: str, name: Preference, activations: Activations) -> tuple[Kernel, str]:
    if name == "exact":
        return ExactKernel(activations), "unpacks the weights at every call"
    if name == "triton":
        return _triton(device, activations)
    if device != "cpu":
        raise MissingDependency(f"kernel {name} is for processors and this is {device}; use exact, triton or auto")
    if activations == "exact":
        raise MissingDependency(f"kernel {name} rounds activations to 8 bits, this model does not; use exact or auto")
    if name == "int4":
        return Int4Kernel(), "4 bits a weight, bfloat16 scales"
    native = NativeKernel()
    if native.instructions == INSTRUCTIONS[0]:
        log.warning("this processor has no AVX2: the ternary kernel's plain loop runs, slower than float32")
    return native, native.instructions


def _triton(device: str, activations: Activations) -> tuple[Kernel, str]:
    if not importlib.util.find_spec("triton"):
        raise MissingDependency("kernel triton needs Triton: pip install triton")
    if device != "cuda" or not torch.cuda.is_available():
        raise MissingDependency(f"kernel triton needs a CUDA device, not {device}; use native, exact or auto")
    from phases.packed.kernels.triton_gemv import TritonKernel

    return TritonKernel(activations), "batches above 8 tokens unpack the weights"
