"""Passthrough merging ("frankenmerge"): a new model from layer slices of its parents, unchanged.

The embedding comes from the parent of the first slice, the final norm and the head from that of the last, as in
mergekit's `passthrough`. A slice may repeat layers, so the depth may grow.
"""

import re
from collections.abc import Mapping, Sequence

import torch

from phases.errors import MergeError

Slice = tuple[int, int, int]
"""(parent, first layer, layer after the last)."""
_LAYER = re.compile(r"^(.*?\blayers\.)(\d+)(\..*)$")


def layers_of(slices: Sequence[Slice]) -> list[tuple[int, int]]:
    """[(parent, layer)] in the order of the new model."""
    return [(parent, layer) for parent, start, stop in slices for layer in range(start, stop)]


def slices_of(path: Sequence[tuple[int, int]]) -> tuple[Slice, ...]:
    """The shortest slices that lay out `path`: neighbouring layers of one parent are joined."""
    slices: list[Slice] = []
    for parent, layer in path:
        if slices and slices[-1][0] == parent and slices[-1][2] == layer:
            slices[-1] = (parent, slices[-1][1], layer + 1)
        else:
            slices.append((parent, layer, layer + 1))
    return tuple(slices)


def layer_name(name: str, layer: int) -> str:
    """`model.layers.3.x` → `model.layers.<layer>.x`."""
    return _LAYER.sub(rf"\g<1>{layer}\g<3>", name)


def split_names(names: Sequence[str]) -> tuple[list[str], dict[int, list[str]]]:
    """Names outside the layer stack, and names by layer. Raises `MergeError` when there is no stack."""
    outside: list[str] = []
    by_layer: dict[int, list[str]] = {}
    for name in names:
        match = _LAYER.match(name)
        if match:
            by_layer.setdefault(int(match[2]), []).append(name)
        else:
            outside.append(name)
    if not by_layer:
        raise MergeError("the parents have no `layers.N.` parameters; frankenmerge and dfs need a decoder stack")
    return outside, by_layer


def passthrough(
    parents: Sequence[Mapping[str, torch.Tensor]], path: Sequence[tuple[int, int]]
) -> dict[str, torch.Tensor]:
    """Tensors of the model whose layer k is layer `path[k][1]` of parent `path[k][0]` (no copies)."""
    if not path:
        raise MergeError("frankenmerge: no layer chosen; give at least one slice")
    outside, by_layer = split_names(list(parents[0]))
    first, last = parents[path[0][0]], parents[path[-1][0]]
    merged = {name: (first if "embed" in name else last)[name] for name in outside}
    for position, (parent, layer) in enumerate(path):
        if layer not in by_layer:
            raise MergeError(f"frankenmerge: layer {layer} does not exist; the parents have {len(by_layer)} layers")
        merged |= {layer_name(name, position): parents[parent][name] for name in by_layer[layer]}
    return merged
