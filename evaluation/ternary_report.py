"""Tables about a ternary model: what lies where on the lattice, what moved since the parent, what weighs how much."""

import re
from collections.abc import Mapping

import numpy as np
import torch

from evaluation.judgement import Cell, Table
from phases.bitnet.lattice import Lattice, ternary

QUANTILES = (0.05, 0.5, 0.95)


def lattice_table(lattices: Mapping[str, Lattice], parent: Mapping[str, torch.Tensor]) -> Table:
    """By kind of layer: shares of zeros, scales, and codes against those of the parent's rounded weights."""
    kinds: dict[str, list[str]] = {}
    for name in lattices:
        kinds.setdefault(kind_of(name), []).append(name)
    before = {name: ternary(parent[name], lattice.group).codes_OI for name, lattice in lattices.items()}
    rows = [_lattice_row(kind, names, lattices, before) for kind, names in kinds.items()]
    rows.append(_lattice_row("all", list(lattices), lattices, before))
    scales = tuple(f"scale {quantile:.0%}" for quantile in QUANTILES)
    columns = ("layer", "weights", "zeros", "zeros of the parent", *scales, "codes changed", "signs flipped")
    return Table(title="Ternary codes and scales", columns=columns, rows=tuple(rows))


def _lattice_row(
    kind: str, names: list[str], lattices: Mapping[str, Lattice], parent_codes: Mapping[str, torch.Tensor]
) -> tuple[Cell, ...]:
    codes = torch.cat([lattices[name].codes_OI.flatten() for name in names])
    before = torch.cat([parent_codes[name].flatten() for name in names])
    scales = torch.cat([lattices[name].scale_OG.flatten().float() for name in names]).numpy()
    return (
        kind,
        len(codes),
        _share(codes == 0),
        _share(before == 0),
        *(float(np.quantile(scales, quantile)) for quantile in QUANTILES),
        _share(codes != before),
        _share(codes * before == -1),
    )


def _share(chosen: torch.Tensor) -> float:
    return float(chosen.double().mean())


def kind_of(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` is an `up_proj`."""
    return re.sub(r"\.weight$", "", name).rpartition(".")[2]


def size_table(by_kind: Mapping[str, tuple[int, int]]) -> Table:
    """Bytes of the packed file by kind of tensor: (numbers in the model, bytes); against float32 and float16."""
    numbers, size = (sum(pair[i] for pair in by_kind.values()) for i in (0, 1))
    rows = [_size_row(kind, *pair) for kind, pair in by_kind.items()]
    rows.append(_size_row("whole file", numbers, size))
    columns = ("tensors", "numbers", "bytes", "bits a number", "smaller than float32", "smaller than float16")
    return Table(title="The packed file by kind of tensor", columns=columns, rows=tuple(rows))


def _size_row(kind: str, numbers: int, size: int) -> tuple[Cell, ...]:
    if not numbers:
        return (kind, 0, size, None, None, None)
    return (kind, numbers, size, 8 * size / numbers, 4 * numbers / size, 2 * numbers / size)
