"""Whether an engine runs on an accelerator at all, and the weights' format with it, before anything is estimated.

What an engine's images are built for, and what its kernels ask of a format: by vLLM's tables of hardware for each kind
of quantisation (docs.vllm.ai, features/quantization) and the least compute capability that its classes demand. Formats
that an accelerator does not compute in may still be stored: Marlin's kernels unpack them on the way to 16 bits.
"""

from dataclasses import dataclass

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.planning.candidate import Rejection
from deployment.planning.fleet import Subject

NVIDIA, AMD = "nvidia", "amd"
WRITTEN = {NVIDIA: "NVIDIA", AMD: "AMD", "intel": "Intel"}
"""As the vendors write themselves, and as the accelerators' list does."""
ENGINES: dict[str, dict[str, float]] = {
    "vllm": {NVIDIA: 7.5, AMD: 9.0},
    "sglang": {NVIDIA: 7.5, AMD: 9.0},
    "trtllm": {NVIDIA: 8.0},
    "tgi": {NVIDIA: 7.5, AMD: 9.0},
    "llama.cpp": {NVIDIA: 5.0, AMD: 9.0, "intel": 0.0},
    "forge": {},
}
"""Whose accelerators an engine itself runs on (its installation guide), and their least compute capability. Others come
by plugins that know some models only and have no measured point in the fit, so they are not recommended; `forge serve`
runs on CPUs alone."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a format of weights asks of the hardware."""

    least: dict[str, float]
    """Compute capability by vendor; a vendor that is not there has no kernels."""
    below: float = float("inf")
    """Of NVIDIA's: kernels are for compute capabilities below this one."""


_MARLIN = {
    "fp8": Kernels({NVIDIA: 7.5, AMD: 9.4}),
    "int8": Kernels({NVIDIA: 7.5}, below=10.0),
    "int4": Kernels({NVIDIA: 7.5}),
    "nvfp4": Kernels({NVIDIA: 8.0}),
    "mxfp4": Kernels({NVIDIA: 8.0, AMD: 9.4}),
}
FORMATS: dict[str, dict[str, Kernels]] = {
    "vllm": _MARLIN,
    "sglang": _MARLIN,
    "tgi": _MARLIN,
    "trtllm": {
        "fp8": Kernels({NVIDIA: 8.9}),
        "int8": Kernels({NVIDIA: 8.0}, below=10.0),
        "int4": Kernels({NVIDIA: 8.0}),
        "nvfp4": Kernels({NVIDIA: 10.0}),
        "mxfp4": Kernels({NVIDIA: 9.0}),
    },
}
"""By engine; llama.cpp has its own formats."""
QUANTISED_ON_LOADING = {"fp8": "fp8", "int8": "int8"}
"""Precisions that a 16-bit checkpoint is served in only where the accelerator computes in them."""
NO_FP16 = ("gemma2", "gemma3", "gemma3_text", "glm4", "plamo2")
"""Families whose activations overflow in fp16: vLLM refuses them there (`config/model.py`)."""


def engine_gate(subject: Subject, model: Model, kept: str, accelerator: Accelerator) -> Rejection | None:
    """Whether the engine runs on the accelerator, and has kernels there for `kept`, the format of the weights.

    `kept` is `weight_format`'s, asked once for all accelerators.
    """
    serving, vendor = subject.serving, accelerator.vendor.lower()
    least = ENGINES[serving.engine]
    if vendor not in least:
        vendors = " or ".join(WRITTEN[one] for one in sorted(least)) or "CPUs alone"
        return subject.reject("engine", accelerator.vendor, vendors, "", "hardware that the engine runs on")
    if _below(accelerator, least[vendor]):
        limit, words = f"{least[vendor]:g} or more", f"{serving.engine} is not built for older ones"
        return subject.reject("engine", f"{accelerator.compute_capability:g}", limit, "compute capability", words)
    return (
        _precision(subject, accelerator) or _kernels(subject, kept, accelerator) or _half(subject, model, accelerator)
    )


def _precision(subject: Subject, accelerator: Accelerator) -> Rejection | None:
    """A precision that was asked for and that the accelerator does not compute in."""
    asked = subject.serving.precision
    unit = QUANTISED_ON_LOADING.get(asked, "bf16" if asked == "bf16" else None)
    if unit and unit not in accelerator.flops:
        return subject.reject("precision", asked, ", ".join(accelerator.flops), "", "what it computes in")
    return None


def _kernels(subject: Subject, kept: str, accelerator: Accelerator) -> Rejection | None:
    """A format, as stored or as asked for, that the engine has no kernels for on this hardware."""
    vendor = accelerator.vendor.lower()
    kernels = FORMATS.get(subject.serving.engine, {}).get(kept)
    if kernels is None:
        return None
    have, least = accelerator.compute_capability, kernels.least.get(vendor)
    if least is not None and not _below(accelerator, least) and (have is None or have < kernels.below):
        return None
    limit = " or ".join(f"{WRITTEN[one]} of compute capability {value:g}" for one, value in kernels.least.items())
    limit += f" to below {kernels.below:g}" if kernels.below < float("inf") else " or more"
    value = f"{accelerator.vendor} of compute capability {have:g}" if have is not None else accelerator.vendor
    return subject.reject("precision", value, limit, "", f"what {subject.serving.engine} has kernels for {kept} on")


def _half(subject: Subject, model: Model, accelerator: Accelerator) -> Rejection | None:
    """A family that needs bf16 on a card that has fp16 alone."""
    if model.family in NO_FP16 and accelerator.half == "fp16" and subject.serving.engine != "llama.cpp":
        words = f"{model.family} is numerically unstable in fp16, so engines refuse it"
        return subject.reject("precision", "fp16", "bf16", "", words)
    return None


def _below(accelerator: Accelerator, least: float) -> bool:
    return accelerator.compute_capability is not None and accelerator.compute_capability < least
