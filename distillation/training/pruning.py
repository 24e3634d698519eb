"""Structured pruning: whole layers, groups of heads and neurons are taken out, and a smaller plain model is left.

Which ones go is measured (`importance.py`; Minitron, arXiv 2407.14679; ShortGPT, arXiv 2403.03853); here is how many,
and the cutting itself. A layer is `fixed + groups · per_group + neurons · per_neuron` parameters, so every shape's size
is known before anything is cut, and the shape nearest the wanted ratio is found among all there are.

    shape = choose_shape(sizes_of(model), 0.5, axes="both")
    tensors = cut_tensors(dict(model.named_parameters()), cut, sizes.whole.groups)

Shapes: L layers, G key-value groups (each with the query heads that read it), I neurons of the feed-forward.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from phases.architecture import check_decoder, decoder_layers
from phases.errors import CheckpointError, InputError
from phases.evomerge.frankenmerge import layer_name, split_names

Axes = Literal["depth", "width", "both"]
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
INPUTS = ("o_proj", "down_proj")
"""Those of which inputs are cut, not outputs."""
TOLERANCE = 0.01
"""Shapes this near the wanted size count as equally near."""
DEARNESS = np.array([8.0, 8.0, 1.0])
"""Of layers, groups and neurons: a student that has lost layers or heads comes back late or never, one that has lost
neurons soon does (docs/log.md; wide before deep is what arXiv 2407.14679 finds, too)."""


@dataclass(frozen=True)
class Shape:
    """What is left of a decoder."""

    layers: int
    groups: int
    """Key-value heads a layer, each with its query heads."""
    neurons: int
    """Width of the feed-forward."""


@dataclass(frozen=True)
class Sizes:
    """How a decoder's parameters are distributed; tied weights count once."""

    whole: Shape
    outside: int
    """Parameters outside the layers: embeddings, final norm, head."""
    fixed: int
    """Parameters of a layer that stay: norms, biases of its outputs."""
    per_group: int
    per_neuron: int

    def total(self, shape: Shape) -> int:
        """Parameters of a model of this shape."""
        layer = self.fixed + shape.groups * self.per_group + shape.neurons * self.per_neuron
        return self.outside + shape.layers * layer


@dataclass(frozen=True)
class Cut:
    """What stays, by index in the model that is cut; every layer keeps as many groups and neurons as the others."""

    layers: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    """Of each layer that stays."""
    neurons: tuple[tuple[int, ...], ...]


def sizes_of(model: Any, where: str) -> Sizes:
    """The sizes of a Llama-, Qwen- or Mistral-style model.

    Raises `CheckpointError` for another, or one whose layers differ from each other.
    """
    check_decoder(model, where)
    outside, by_layer = split_names([name for name, _ in model.named_parameters()])
    counted = {name: parameter.numel() for name, parameter in model.named_parameters()}
    parts = [_by_part({name: counted[name] for name in names}) for names in by_layer.values()]
    layer: Any = decoder_layers(model)[0]
    plain = all(hasattr(layer, part) for part in ("self_attn", "mlp")) and parts[0]["groups"] and parts[0]["neurons"]
    if not plain or any(part != parts[0] for part in parts):
        raise CheckpointError(
            f"{where}: its layers are not alike, or not q/k/v/o and gate/up/down projections; give a plain Llama-, "
            "Qwen- or Mistral-style model, or a student of your own (student.kind: checkpoint)"
        )
    groups, neurons = int(model.config.num_key_value_heads), int(layer.mlp.down_proj.in_features)
    return Sizes(
        Shape(len(by_layer), groups, neurons),
        sum(counted[name] for name in outside),
        parts[0]["fixed"],
        parts[0]["groups"] // groups,
        parts[0]["neurons"] // neurons,
    )


def choose_shape(sizes: Sizes, ratio: float, axes: Axes, layers: int | None = None) -> Shape:
    """The shape smaller than the whole whose size is nearest `ratio` of it, along the given axes.

    Of shapes within `TOLERANCE` of the nearest the one is taken that keeps most: least Σ dearness · log² of the shares.
    `layers` fixes the depth. Raises `InputError` when nothing smaller can be had.
    """
    whole = sizes.whole
    depths = [whole.layers] if axes == "width" else list(range(1, whole.layers + 1))
    if layers is not None:
        depths = [layers] if layers in depths else []
    groups = [whole.groups] if axes == "depth" else list(range(1, whole.groups + 1))
    step = 8 if whole.neurons % 8 == 0 else 1  # what kernels like, where the teacher has it
    neurons = [whole.neurons] if axes == "depth" else list(range(step, whole.neurons + 1, step))
    shapes = np.array(np.meshgrid(depths, groups, neurons, indexing="ij"), dtype=np.int64).reshape(3, -1).T
    if not len(shapes):
        raise InputError(f"student.layers={layers}: {_range(whole, axes)}")
    layer = sizes.fixed + shapes[:, 1] * sizes.per_group + shapes[:, 2] * sizes.per_neuron
    total, full = sizes.outside + shapes[:, 0] * layer, sizes.total(whole)
    shapes, total = shapes[total < full], total[total < full]
    if not len(shapes):
        raise InputError(f"student: nothing of this teacher can be cut along '{axes}'; choose other axes")
    apart = np.abs(total - ratio * full) / full
    near = apart <= max(TOLERANCE, apart.min() + 1e-12)
    shares = shapes[near] / np.array([whole.layers, whole.groups, whole.neurons])
    best = shapes[near][np.argmin((DEARNESS * np.log(shares) ** 2).sum(1))]
    return Shape(int(best[0]), int(best[1]), int(best[2]))


def cut_tensors(tensors: Mapping[str, torch.Tensor], cut: Cut, groups: int) -> dict[str, torch.Tensor]:
    """The tensors that are left of a model with so many groups, under the smaller model's names (copies)."""
    outside, by_layer = split_names(list(tensors))
    left = {name: tensors[name].detach().clone() for name in outside}
    for place, layer in enumerate(cut.layers):
        for name in by_layer[layer]:
            module, kind = name.rsplit(".", 2)[-2:]
            tensor = tensors[name].detach()
            if module in INPUTS and kind == "bias":
                pass  # of what it puts out: the stream's width stays
            elif module in ATTENTION:
                axis = int(module in INPUTS)
                tensor = tensor.index_select(axis, _spread(cut.groups[place], tensor.shape[axis] // groups))
            elif module in FEED_FORWARD:
                tensor = tensor.index_select(int(module in INPUTS), torch.tensor(cut.neurons[place]))
            left[layer_name(name, place)] = tensor.clone()
    return left


def cut_config(config: Any, cut: Cut) -> Any:
    """The config of the smaller model."""
    small, heads = copy.deepcopy(config), config.num_attention_heads
    small.head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    small.num_hidden_layers = len(cut.layers)
    small.num_key_value_heads = len(cut.groups[0])
    small.num_attention_heads = heads // config.num_key_value_heads * len(cut.groups[0])
    small.intermediate_size = len(cut.neurons[0])
    if getattr(config, "layer_types", None) is not None:
        small.layer_types = [config.layer_types[layer] for layer in cut.layers]
    return small


def strongest(scores: Sequence[float], keep: int) -> tuple[int, ...]:
    """Indices of the `keep` largest scores in their own order; of equal ones the first."""
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return tuple(sorted(int(i) for i in order[:keep]))


def _by_part(counted: Mapping[str, int]) -> dict[str, int]:
    """Parameters of one layer that go with the groups, with the neurons, and with neither."""
    found = {"groups": 0, "neurons": 0, "fixed": 0}
    for name, count in counted.items():
        module, kind = name.rsplit(".", 2)[-2:]
        stays = module not in (*ATTENTION, *FEED_FORWARD) or (module in INPUTS and kind == "bias")
        found["fixed" if stays else "groups" if module in ATTENTION else "neurons"] += count
    return found


def _spread(chosen: Sequence[int], rows: int) -> torch.Tensor:
    """Row indices of some groups of `rows` rows each."""
    return (torch.tensor(chosen)[:, None] * rows + torch.arange(rows)).reshape(-1)


def _range(whole: Shape, axes: Axes) -> str:
    return f"with axes '{axes}' a teacher of {whole.layers} layers leaves " + (
        f"{whole.layers}" if axes == "width" else f"1 to {whole.layers}"
    )
