"""The packed file of a ternary checkpoint, as it lies on the disk: its bytes, and whether it is the same model."""

from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.metric import Gate, Metric, gate
from phases.bitnet.run import PACKED
from phases.checkpoint import Checkpoint
from phases.errors import CheckpointError
from phases.packed.model import packed_matrices, unpacked_weights
from phases.packed.plan import WEIGHTS
from phases.packed.settings import PackedSettings
from phases.packed.sizes import measure_bytes, predict_bytes


@dataclass(frozen=True)
class PackedFile:
    """What was found."""

    bytes: int
    """As `stat` gives them."""
    promised: int
    """As the shapes and the layout of the ternary checkpoint say, before anything is written."""
    by_kind: Mapping[str, tuple[int, int]]
    """(numbers of the model, bytes) by kind of tensor; the bytes add up to the file's."""
    parameters: int
    """Numbers in the model, tied ones once."""
    differing: int
    """Weights that are not those of the ternary checkpoint after unpacking."""

    def metrics(self, split: str) -> list[Metric]:
        """Size of the file; it has no error."""
        sizes = {
            "bytes": (self.bytes, "bytes"),
            "bits_per_parameter": (8 * self.bytes / self.parameters, "bits"),
            "smaller_than_float32": (4 * self.parameters / self.bytes, "times"),
            "smaller_than_float16": (2 * self.parameters / self.bytes, "times"),
        }
        return [
            Metric(name=f"packed/{name}", split=split, value=value, n=self.parameters, unit=unit)
            for name, (value, unit) in sizes.items()
        ]


def inspect_packed(checkpoint: Checkpoint) -> PackedFile:
    """Open and compare the packed sibling. Raises `CheckpointError` when it is missing or damaged."""
    packed = checkpoint.siblings.get(PACKED)
    if packed is None:
        raise CheckpointError(f"{checkpoint.path}: its packed form is missing; run the phase again")
    model = packed.model()
    weights, unpacked, matrices = checkpoint.tensors(), unpacked_weights(model), packed_matrices(model)
    if missing := sorted(set(weights) ^ set(unpacked)):
        raise CheckpointError(f"{packed.path}: {missing[0]} is in it or in {checkpoint.path}, but not in both")
    differing = sum(int((weights[name] != unpacked[name]).sum()) for name in weights)
    settings: PackedSettings = model.config.quantization_config.settings
    numbers = {
        "ternary_codes": sum(m.shape[0] * m.shape[1] for m in matrices.values() if m.layout == settings.layout),
        "embedding_codes": sum(m.shape[0] * m.shape[1] for m in matrices.values() if m.layout != settings.layout),
    }
    parameters = sum(tensor.numel() for tensor in weights.values())
    numbers["other_weights"] = parameters - sum(numbers.values())
    found = measure_bytes(packed.path)
    by_kind = {name.replace("_", " "): (numbers.get(name, 0), size) for name, size in vars(found).items()}
    return PackedFile(
        bytes=(packed.path / WEIGHTS).stat().st_size,
        promised=predict_bytes(checkpoint.path, settings.layout).total,
        by_kind=by_kind,
        parameters=parameters,
        differing=differing,
    )


def file_gates(model: str, off: int, packed: PackedFile) -> list[Gate]:
    """On the lattice, of the promised size, and the same model when it is unpacked; `off`: weights off the lattice."""
    return [
        gate("every linear weight is on the lattice", f"{model}/off_lattice", off, "<=", 0),
        gate("packed bytes are at most as promised", "packed/bytes", packed.bytes, "<=", packed.promised),
        gate("packed bytes are at least as promised", "packed/bytes", packed.bytes, ">=", packed.promised),
        gate("unpacked weights are bit for bit the same", "packed/weights_that_differ", packed.differing, "<=", 0),
    ]
