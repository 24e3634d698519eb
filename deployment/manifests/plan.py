"""From a candidate to what manifests need: names that Kubernetes takes, images, pods per replica, accelerators a pod.

    from deployment.manifests.plan import make_plan
    plan = make_plan(recommendation.chosen)
    plan.name, plan.nodes, plan.accelerators_per_node    # 'qwen-qwen3-32b', 1, 2

A plan that no manifest could carry out is refused here, with the reason, and not half written: an engine or a vendor
without an image, a replica that does not divide over its instances, a precision that needs a checkpoint of its own.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from deployment.atlas.catalogue import shipped
from deployment.model import Model
from deployment.physics.weights import bytes_per_accelerator
from deployment.planning.candidate import Candidate
from deployment.serving import Precision, Serving
from phases.errors import InputError

Runtime = Literal["vllm", "tgi", "forge"]
"""What the containers run: an engine for accelerators, or `forge serve` for a forge's agent on CPUs."""
PORT = 8000
MODELS = "/models"
"""Where a checkpoint that is not on the hub is mounted."""
NAME_LENGTH = 40
"""Of 63 characters that a label may have: operators append their own suffixes."""
VLLM_VERSION = "0.22.0"
"""Of the image where the plan names none; the memory model's facts end there (`deployment/physics/engines.py`)."""
TGI_VERSION = "3.3.5"
"""The newest in TGI's README; the project is in maintenance since."""
FORGE_IMAGE = "agent-forge:0.1.0"
"""Of a forge's agent, as the repository's Dockerfile names it; there is no published one."""
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
_RUNTIME_QUANTISED: tuple[Precision, ...] = ("fp8",)
"""What engines make of a 16-bit checkpoint while they load it (vLLM and TGI: dynamic fp8)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What every manifest is made from."""

    candidate: Candidate
    runtime: Runtime
    name: str
    """A DNS-1035 label: of all objects."""
    checkpoint: str
    """What the engine loads: a hub id, or a path under `/models`."""
    image: str
    nodes: int
    """Pods (and instances) of one replica; more than 1: the replica spans instances."""
    accelerators_per_node: int
    resource: str
    """What the scheduler counts accelerators by, `nvidia.com/gpu`; empty on CPUs."""
    quantise: bool = False
    """The engine quantises while it loads."""
    steps: tuple[str, ...] = ()
    """What has to be done before the manifests work, in words."""
    tokenizer: str = ""
    """Of load tests: a hub id, or a folder's whole path; empty: only the user knows where one is."""

    @property
    def mounted(self) -> bool:
        """The checkpoint comes from a volume and not from the hub."""
        return self.checkpoint.startswith(MODELS + "/")

    @property
    def tokenizer_unknown(self) -> bool:
        """The server's name for the model is not on the hub, and only the user knows where its tokenizer is."""
        return self.mounted and not self.tokenizer

    @property
    def download_bytes(self) -> float:
        """What every pod fetches from the hub when it starts: the whole checkpoint; 0: it comes from a volume."""
        if self.mounted:
            return 0.0
        precision = "stored" if self.quantise else self.candidate.serving.precision
        return bytes_per_accelerator(self.candidate.model, Serving(precision=precision))

    @property
    def claim(self) -> str:
        """The volume claim that holds the checkpoint."""
        return f"{self.name}-model"

    @property
    def folder(self) -> str:
        """The checkpoint's folder on that volume, also where a hub's model has to be put there."""
        path = PurePosixPath(self.checkpoint)
        return path.name if self.mounted else label(path.name)

    @property
    def served_name(self) -> str:
        """What clients put in `model`: the hub id, or the last part of a path."""
        return PurePosixPath(self.checkpoint).name if self.mounted else self.checkpoint

    @property
    def labels(self) -> dict[str, str]:
        """That all objects carry, and that services select by."""
        return {"app.kubernetes.io/name": self.name, "app.kubernetes.io/managed-by": "agent-forge"}


def label(text: str, length: int = NAME_LENGTH) -> str:
    """`text` as a DNS-1035 label (RFC 1035: a letter, then letters, digits and hyphens); cut ones end with a digest.

    Different texts may give one label (`a.b` and `a-b`) as they would in every tool that names objects after models.
    """
    made = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not made or not made[0].isalpha():
        made = f"m-{made}".rstrip("-")
    if len(made) > length:
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        made = f"{made[: length - 7].rstrip('-')}-{digest}"
    return made


def make_plan(candidate: Candidate, *, checkpoint: str | None = None, name: str | None = None) -> Plan:
    """The plan of a candidate. `checkpoint` is what to load instead of the model's own: a hub id, or a path.

    What looks like both and is a folder here is a path. Raises `InputError` where no manifest could carry it out.
    """
    runtime = _runtime(candidate)
    nodes, per_node = _shape(candidate)
    source, steps = _source(candidate, checkpoint)
    quantise = checkpoint is None and _quantises(candidate)
    made, image = label(name or candidate.model.name), _image(candidate, runtime)
    resource = _resource(candidate, runtime)
    if runtime == "forge":
        build = (
            f"build the image in the forge's repository (`docker build --tag {image} .`), and push or load it to where"
        )
        steps = (f"{build} the containers start from", *steps)
    tokenizer = _tokenizer(candidate.model, checkpoint)
    return Plan(candidate, runtime, made, source, image, nodes, per_node, resource, quantise, steps, tokenizer)


def _runtime(candidate: Candidate) -> Runtime:
    if candidate.accelerator is None:
        return "forge"
    engine = candidate.serving.engine
    if engine not in ("vllm", "tgi"):
        raise InputError(f"engine '{engine}': manifests are written for vllm and tgi; recommend with --engine vllm")
    serving = candidate.serving
    if engine == "tgi" and serving.pp * serving.dp > 1:
        raise InputError(f"TGI has no pipeline or data parallelism (PP {serving.pp}, DP {serving.dp}); use vllm")
    return "tgi" if engine == "tgi" else "vllm"


def _resource(candidate: Candidate, runtime: Runtime) -> str:
    """The extended resource of the vendor's device plugin."""
    if runtime == "forge" or candidate.accelerator is None:
        return ""
    vendor = candidate.accelerator.vendor.lower()
    if vendor not in _RESOURCES:
        raise InputError(
            f"{candidate.accelerator.name} is made by {candidate.accelerator.vendor}: manifests are written for the "
            "device plugins of NVIDIA and AMD; recommend with --vendor nvidia or --vendor amd"
        )
    return _RESOURCES[vendor]


def _shape(candidate: Candidate) -> tuple[int, int]:
    """Pods of a replica, and accelerators of each."""
    if candidate.accelerator is None:
        return 1, 0
    wanted, there = candidate.serving.accelerators, max(1, candidate.offer.count)
    if wanted <= there:
        return 1, wanted
    nodes, rest = divmod(wanted, there)
    if rest or there % candidate.serving.tp:
        raise InputError(
            f"{wanted} accelerators (TP {candidate.serving.tp}) do not divide over instances of {there}; "
            f"choose TP × PP × DP as a multiple of {there}, with TP within one instance"
        )
    return nodes, there


def _quantises(candidate: Candidate) -> bool:
    """The published weights are wider than the plan's, and the engine narrows them while loading."""
    return candidate.serving.precision in _RUNTIME_QUANTISED and candidate.model.stored_bits > 8.5


def _source(candidate: Candidate, checkpoint: str | None) -> tuple[str, tuple[str, ...]]:
    """What is loaded, and what has to be done first."""
    given, precision = checkpoint or candidate.model.name, candidate.serving.precision
    # A checkpoint of its own is needed where the published one has other bits and the engine cannot make them.
    if checkpoint is None and not _quantises(candidate) and _differs(candidate.model.stored_bits, precision):
        path = f"{MODELS}/{label(given)}-{precision}"
        bits = f"{candidate.model.stored_bits:g}"
        return path, (f"write {given}, published at {bits} bits a weight, as {precision} to {path} on the volume",)
    if (_is_hub_id(checkpoint) if checkpoint else _published(candidate.model)) and _HUB.fullmatch(given):
        return given, ()
    path = f"{MODELS}/{label(PurePosixPath(given).name)}"
    return path, (f"put the checkpoint {given} at {path} on the volume",)


def _tokenizer(model: Model, checkpoint: str | None) -> str:
    """As for weights: a name that nobody published is a stranger's on the hub, unless it is a folder here.

    Its path is whole: the load test may start in another folder, where `runs/student` would be a hub id again.
    """
    if _published(model):
        return model.name
    folder = Path(checkpoint or model.name)
    return str(folder.absolute()) if folder.is_dir() else ""


def _is_hub_id(checkpoint: str) -> bool:
    return bool(_HUB.fullmatch(checkpoint)) and not Path(checkpoint).exists()


def _published(model: Model) -> bool:
    """The atlas knows the model from the hub: shipped with it, or added by its hub id.

    A name alone proves nothing: `runs/student` is a folder here, and may be a stranger's repository there.
    """
    return model.source.startswith("huggingface.co/") or model in shipped()


def _differs(stored_bits: float, precision: Precision) -> bool:
    """Whether weights of `precision` are others than the published ones (bits a weight, with their scales)."""
    ranges = {"bf16": (15, 33), "fp8": (7.5, 8.6), "int8": (7.5, 8.6), "int4": (3.5, 4.9), "nvfp4": (4.3, 4.7)}
    low, high = ranges.get(precision, (4.1, 4.4))  # mxfp4: 4.25
    return precision != "stored" and not low <= stored_bits <= high


def _image(candidate: Candidate, runtime: Runtime) -> str:
    version = candidate.serving.version.removeprefix("v")
    if version.count(".") == 1:  # the engines' facts are by minor version
        version += ".0"
    amd = candidate.accelerator is not None and candidate.accelerator.vendor.lower() == "amd"
    if runtime == "vllm":
        return f"vllm/vllm-openai{'-rocm' if amd else ''}:v{version or VLLM_VERSION}"
    if runtime == "tgi":
        return f"ghcr.io/huggingface/text-generation-inference:{version or TGI_VERSION}{'-rocm' if amd else ''}"
    return FORGE_IMAGE
