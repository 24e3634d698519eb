"""A ternary model on disk: standard weights on the lattice, the latent weights beside them, and what the lattice is.

model.safetensors    the exact dequantised weights: plain `from_pretrained` opens the ternary model
latent.safetensors   the float32 weights that training moves; later phases go on with them
ternary.json         group, bits, and which tensors are on which lattice
"""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.lattice import Lattice, nearest_ternary, read_absmax, read_ternary
from phases.checkpoint import Checkpoint
from phases.errors import CheckpointError, TrainingError
from phases.strict import StrictModel

LATENT, SETTINGS = "latent.safetensors", "ternary.json"


class TernaryFile(StrictModel):
    """`ternary.json`."""

    quantisation: Quantisation
    """The lattice of each kind of tensor."""
    ternary: tuple[str, ...]
    """Names of the ternary tensors in `model.safetensors`."""
    embeddings: tuple[str, ...]
    """Names of the tensors there with `embedding_bits` bits; a tied head is its embedding."""


def ternary_files(quantised: Quantised) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    """(tensors, texts) that `save_checkpoint` puts beside the weights; taken before the model is folded."""
    latent = quantised.latent()
    broken = [name for name, tensor in latent.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise TrainingError(f"{broken[0]}: not finite (NaN) after training; lower bitnet.training's learning rates")
    settings = TernaryFile(
        quantisation=quantised.quantisation, ternary=quantised.ternary, embeddings=quantised.embeddings
    )
    return {LATENT: latent}, {SETTINGS: settings.model_dump_json(indent=2) + "\n"}


def is_ternary(path: Path | str) -> bool:
    """Whether a checkpoint says that it is ternary."""
    return (Path(path) / SETTINGS).is_file()


def refuse_ternary(checkpoint: Checkpoint, phase: str) -> None:
    """Raise `CheckpointError` for a parent that a phase would quietly take off its lattice, or cannot train at all."""
    refuse_packed(checkpoint, phase)
    if is_ternary(checkpoint.path):
        raise CheckpointError(
            f"{checkpoint.path}: ternary, and {phase} does not train through the lattice; run {phase} before bitnet"
        )


def refuse_packed(checkpoint: Checkpoint, phase: str) -> None:
    """Raise `CheckpointError` for a packed parent."""
    if "quantization_config" in json.loads((checkpoint.path / "config.json").read_text(encoding="utf-8")):
        raise CheckpointError(f"{checkpoint.path}: packed, which {phase} cannot train; give what it was packed from")


def read_settings(path: Path | str) -> TernaryFile:
    """`ternary.json` of a checkpoint. Raises `CheckpointError` when it is missing or damaged."""
    file = Path(path) / SETTINGS
    try:
        return TernaryFile.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not ternary (no {SETTINGS}); give a checkpoint of the bitnet phase") from None
    except (OSError, ValueError, ValidationError):
        raise CheckpointError(f"{file}: truncated or altered; restore it from a copy or run the phase again") from None


def read_lattices(path: Path | str) -> dict[str, Lattice]:
    """Codes and scales of every tensor that `ternary.json` names, read from the weights in the file.

    Raises `CheckpointError` that names the file and the first tensor that is missing or off its lattice.
    """
    settings, weights = read_settings(path), _load(Path(path) / "model.safetensors")
    missing = [name for name in (*settings.ternary, *settings.embeddings) if name not in weights]
    if missing:
        raise CheckpointError(f"{path}: model.safetensors has no tensor {missing[0]}, which {SETTINGS} names")
    group, bits = settings.quantisation.group, settings.quantisation.embedding_bits
    found = {name: read_ternary(weights[name], group, f"{path}: {name}") for name in settings.ternary}
    if bits is not None:
        found |= {name: read_absmax(weights[name], bits, group, f"{path}: {name}") for name in settings.embeddings}
    return found


def ternary_lattices(path: Path | str) -> dict[str, Lattice]:
    """`read_lattices` without the embeddings."""
    found = read_lattices(path)
    return {name: found[name] for name in read_settings(path).ternary}


def count_off_lattice(path: Path | str, names: Iterable[str]) -> int:
    """Weights in the file, of the tensors called `names`, that are not on the ternary lattice it speaks of.

    Raises `CheckpointError` when a tensor is missing.
    """
    group, weights = read_settings(path).quantisation.group, _load(Path(path) / "model.safetensors")
    missing = [name for name in names if name not in weights]
    if missing:
        raise CheckpointError(f"{path}: model.safetensors has no tensor {missing[0]}; restore it from a copy")
    return sum(nearest_ternary(weights[name], group)[1] for name in names)


def open_latent(checkpoint: Checkpoint) -> Quantised:
    """The model of a ternary checkpoint on its latent weights, ready to train on through the estimator.

    Raises `CheckpointError` when the latent weights do not round to the standard ones.
    """
    path, weights = checkpoint.path, checkpoint.tensors()
    quantised = Quantised(checkpoint.model(), read_settings(path).quantisation, _read_latent(path))
    for name, lattice in quantised.lattices().items():
        if not torch.equal(lattice.dequantise(), weights[name]):
            raise CheckpointError(f"{path / LATENT}: {name} does not round to the model's weights; restore it")
    return quantised


def _read_latent(path: Path) -> dict[str, torch.Tensor]:
    """The latent weights of a ternary checkpoint by name. Raises `CheckpointError` when they are not all there."""
    settings, latent = read_settings(path), _load(path / LATENT)
    if set(latent) != {*settings.ternary, *settings.embeddings}:
        raise CheckpointError(f"{path / LATENT}: holds other tensors than {SETTINGS} names; restore it from a copy")
    return latent


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: missing, truncated or altered ({reason}); restore it from a copy") from None
