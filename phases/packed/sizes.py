"""Bytes of a packed file by kind of tensor: what they will be, from shapes and layout, and what they are."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from phases.packed.container import Entry, build_header, read_header
from phases.packed.layout import TernaryLayout
from phases.packed.model import pack_layers, packed_matrices
from phases.packed.plan import WEIGHTS, empty_model, plan_file
from phases.packed.settings import ForgeTernaryConfig
from phases.packed.verify import metadata


@dataclass(frozen=True)
class PackedBytes:
    """Bytes of every kind; they add up to the file's size."""

    ternary_codes: int
    ternary_scales: int
    embedding_codes: int
    embedding_scales: int
    other_weights: int
    """Norms, biases, and embeddings that are not packed."""
    header: int

    @property
    def total(self) -> int:
        """The size of the file, as `stat` gives it."""
        return sum(getattr(self, field.name) for field in fields(self))


def predict_bytes(path: Path | str, layout: TernaryLayout) -> PackedBytes:
    """Bytes of the file that a ternary checkpoint will be packed into, from shapes alone."""
    plan = plan_file(path, layout)
    head, _ = build_header(plan.entries, metadata(plan.settings))
    return _by_kind(plan.entries, len(head), plan.model)


def measure_bytes(path: Path | str) -> PackedBytes:
    """Bytes of a packed checkpoint's file, as its header has them."""
    header, model = read_header(Path(path) / WEIGHTS), empty_model(path)
    pack_layers(model, ForgeTernaryConfig(**model.config.quantization_config).settings, torch.float32)
    return _by_kind(header.entries, header.bytes, model)


def _by_kind(entries: Mapping[str, Entry], header_bytes: int, model: Any) -> PackedBytes:
    kinds = dict.fromkeys((field.name for field in fields(PackedBytes)), 0)
    matrices = packed_matrices(model)
    for name, entry in entries.items():
        module, _, part = name.rpartition(".")
        if module in matrices and part in ("codes", "scale"):
            owner = "ternary" if matrices[module].layout in ("trits", "2bit") else "embedding"
            kinds[f"{owner}_codes" if part == "codes" else f"{owner}_scales"] += entry.bytes
        else:
            kinds["other_weights"] += entry.bytes
    return PackedBytes(**{**kinds, "header": header_bytes})
