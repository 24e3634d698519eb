"""What a ternary checkpoint becomes when it is packed, known before any weight is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from phases.bitnet.storage import TernaryFile, read_settings
from phases.checkpoint import explain_load_errors
from phases.errors import CheckpointError
from phases.packed.container import DTYPES, Entry
from phases.packed.layout import TernaryLayout
from phases.packed.model import entries, pack_layers, packed_matrices
from phases.packed.settings import PackedSettings

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Plan:
    """A packed file to be."""

    settings: PackedSettings
    model: Any
    """On the meta device, with empty packed layers."""
    entries: dict[str, Entry]
    """The tensors of the file."""


def empty_model(path: Path | str) -> Any:
    """The model of a folder's `config.json` on the meta device: shapes and no weights."""
    with explain_load_errors(path), torch.device("meta"):
        config = AutoConfig.from_pretrained(str(path))
        return AutoModelForCausalLM.from_config(config)


def plan_file(path: Path | str, layout: TernaryLayout) -> Plan:
    """The file that a ternary checkpoint will be packed into.

    Raises `CheckpointError` when the checkpoint is not ternary, or holds other tensors than it says.
    """
    ternary, source, model = read_settings(path), _source_entries(Path(path) / WEIGHTS), empty_model(path)
    settings = _settings(path, ternary, model, layout)
    pack_layers(model, settings, torch.float32)
    expected = {f"{module}.weight" for module in packed_matrices(model)}
    named = {*ternary.ternary, *(ternary.embeddings if settings.embedding_bits else ())}
    for name in sorted(expected ^ named):
        raise CheckpointError(
            f"{path}: ternary.json and config.json do not agree about {name}; restore both from one copy"
        )
    result = entries(model)
    parts = {f"{module}.{part}" for module in packed_matrices(model) for part in ("codes", "scale")}
    plain = result.keys() - parts
    for name in sorted(source.keys() ^ (expected | plain)):
        what = "is no tensor of the model" if name in source else "is missing"
        raise CheckpointError(f"{Path(path) / WEIGHTS}: {name} {what}; restore the checkpoint from a copy")
    return Plan(settings, model, {n: source[n] if n in plain else entry for n, entry in result.items()})


def _settings(path: Path | str, ternary: TernaryFile, model: Any, layout: TernaryLayout) -> PackedSettings:
    head = model.get_output_embeddings()
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head]
    return PackedSettings(
        layout=layout,
        group=ternary.quantisation.group,
        embedding_bits=ternary.quantisation.embedding_bits,
        activations=ternary.quantisation.activations,
        modules_to_not_convert=tuple(n for n in linear if f"{n}.weight" not in ternary.ternary),
    )


def _source_entries(path: Path) -> dict[str, Entry]:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            return {n: Entry(DTYPES[s.get_dtype()], tuple(s.get_shape())) for n, s in slices.items()}
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error}); restore the checkpoint from a copy") from None
