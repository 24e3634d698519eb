"""Expert vectors on disk: a change of a model's linear weights for every domain, in one or two kinds.

experts.safetensors       singular: for each expert and matrix z, one float32 a singular value
task_vectors.safetensors  task: for each expert and matrix the difference of the latent weights, float16
experts.json              names, kinds, what they belong to, how alike they are, and weights that were found for them

A task vector *is* what is stored: whatever is measured of it has been rounded to float16 before. Vectors fit the very
weights that they were learnt on and no others, which is checked by those weights' SHA-256.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from phases.errors import CheckpointError
from phases.storage import write_json
from phases.strict import StrictModel

EXPERTS, EXPERTS_INDEX, TASK_VECTORS = "experts.safetensors", "experts.json", "task_vectors.safetensors"

Kind = Literal["singular", "task"]
Vectors = Mapping[str, Mapping[str, torch.Tensor]]
"""By expert, by matrix: z (R,), or τ (O, I)."""
FILES: Mapping[Kind, str] = {"singular": EXPERTS, "task": TASK_VECTORS}
TYPES: Mapping[Kind, torch.dtype] = {"singular": torch.float32, "task": torch.float16}
_MEND = "restore it from a copy or run the phase again"


class ExpertIndex(StrictModel):
    """`experts.json`."""

    names: tuple[str, ...] = Field(min_length=1)
    """The experts, one a domain."""
    kinds: tuple[Kind, ...] = Field(min_length=1)
    """How each is there."""
    base: str
    """SHA-256 of the latent linear weights that they belong to."""
    cosine: dict[Kind, tuple[tuple[float, ...], ...]] = Field({})
    """Likeness of every two experts, in the order of the names."""
    found: dict[Kind, dict[str, float]] = Field({})
    """Weights that were found for their sum."""


def has_experts(path: Path) -> bool:
    """Whether a folder has expert files."""
    return (Path(path) / EXPERTS_INDEX).is_file()


def weights_digest(latent: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the names and values of weights."""
    digest = hashlib.sha256()
    for name in sorted(latent):
        digest.update(name.encode())
        digest.update(latent[name].detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def change(kind: Kind, vector: torch.Tensor) -> torch.Tensor:
    """What an expert adds, in float32: z − 1, or τ."""
    return vector.float() - 1 if kind == "singular" else vector.float()


def cosines(kind: Kind, vectors: Vectors) -> tuple[tuple[float, ...], ...]:
    """(K, K) cosines between the experts' changes, all matrices together; 0 beside an expert that changes nothing."""
    flat = [torch.cat([change(kind, v).flatten() for v in expert.values()]).double() for expert in vectors.values()]
    unit_KP = torch.stack([torch.nn.functional.normalize(v, dim=0) for v in flat])
    return tuple(tuple(round(float(value), 6) for value in row) for row in unit_KP @ unit_KP.T)


def write_vectors(folder: Path, kind: Kind, vectors: Vectors) -> None:
    """Write the file of one kind into a folder."""
    tensors = {f"{name}/{matrix}": v for name, expert in vectors.items() for matrix, v in expert.items()}
    save_file({key: v.detach().cpu().to(TYPES[kind]).contiguous() for key, v in tensors.items()}, folder / FILES[kind])


def read_vectors(folder: Path, index: ExpertIndex, kind: Kind, shapes: Mapping[str, torch.Size]) -> Vectors:
    """Every expert's vectors, for matrices of these shapes.

    Raises `CheckpointError` for a file that is missing or damaged, or holds something else.
    """
    file = folder / FILES[kind]
    tensors = load_tensors(file)
    wanted = {f"{name}/{matrix}" for name in index.names for matrix in shapes}
    if odd := sorted(wanted ^ tensors.keys()):
        raise CheckpointError(f"{file}: {odd[0]} is {'missing' if odd[0] in wanted else 'too much'}; {_MEND}")
    vectors = {name: {matrix: tensors[f"{name}/{matrix}"] for matrix in shapes} for name in index.names}
    for key, vector in tensors.items():
        shape = shapes[key.split("/", 1)[1]]
        if vector.shape != (torch.Size([min(shape)]) if kind == "singular" else shape):
            raise CheckpointError(f"{file}: {key} has another shape than its matrix allows; {_MEND}")
        if vector.dtype != TYPES[kind] or not vector.isfinite().all():
            raise CheckpointError(f"{file}: {key} is not finite {str(TYPES[kind]).removeprefix('torch.')}; {_MEND}")
    return vectors


def load_tensors(file: Path) -> dict[str, torch.Tensor]:
    """What a safetensors file holds. Raises `CheckpointError` when it cannot be read."""
    try:
        return dict(load_file(file))
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{file}: missing, truncated or altered ({reason}); {_MEND}") from None


def read_index(folder: Path) -> ExpertIndex:
    """`experts.json` of a folder. Raises `CheckpointError` when it is missing or damaged."""
    file = folder / EXPERTS_INDEX
    try:
        return ExpertIndex.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: no experts (no {EXPERTS_INDEX}); give a checkpoint that the adas phase wrote"
        ) from None
    except (OSError, ValueError, ValidationError):
        raise CheckpointError(f"{file}: truncated or altered; {_MEND}") from None


def write_index(folder: Path, index: ExpertIndex) -> None:
    """Replace `experts.json`."""
    write_json(folder / EXPERTS_INDEX, index.model_dump(mode="json"))


def record_found(folder: Path, kind: Kind, weights: Mapping[str, float]) -> None:
    """Write the weights that were found for the experts' sum into `experts.json`."""
    index = read_index(folder)
    check_names(index.names, weights, str(folder / EXPERTS_INDEX))
    write_index(folder, index.model_copy(update={"found": {**index.found, kind: dict(weights)}}))


def check_names(names: Iterable[str], given: Iterable[str], where: str) -> None:
    """Raise `CheckpointError` for an expert that there is not."""
    known = list(names)
    if unknown := sorted(set(given) - set(known)):
        raise CheckpointError(f"{where}: no expert '{unknown[0]}'; there are: {', '.join(known)}")
