"""A model with packed layers in the places of its linear layers, embeddings and head, and the tensors it then has."""

from typing import Any

import torch
from torch import nn

from phases.packed.container import Entry
from phases.packed.layout import CodesLayout
from phases.packed.modules import PackedEmbedding, PackedHead, PackedLinear, PackedMatrix, TiedHead
from phases.packed.settings import PackedSettings


def pack_layers(model: Any, settings: PackedSettings, dtype: torch.dtype) -> None:
    """Replace the layers of a model by empty packed ones on the meta device, in place.

    Linear layers of the body become ternary. Where embeddings have 8 or 4 bits, so has the head, and a tied head refers
    to the embedding.
    """
    with torch.device("meta"):
        head = model.get_output_embeddings()
        for name, module in list(model.named_modules()):
            plain = module is head or name in settings.modules_to_not_convert
            if isinstance(module, nn.Linear) and not plain:
                model.set_submodule(name, _linear(module, settings, dtype))
        if settings.embedding_layout:
            _pack_embeddings(model, settings.embedding_layout, settings.group, dtype)


def entries(model: Any) -> dict[str, Entry]:
    """What the file of a model has to hold; dtypes of tensors that are not packed are the model's own."""
    tied = model.all_tied_weights_keys
    return {name: Entry(t.dtype, tuple(t.shape)) for name, t in model.state_dict().items() if name not in tied}


def packed_matrices(model: Any) -> dict[str, PackedMatrix]:
    """The packed layers by name; a tied head is its embedding."""
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedMatrix)}


def unpacked_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights that a packed model stands for, by the names that the ternary checkpoint has for them."""
    packed = {f"{name}.weight": matrix.weight for name, matrix in packed_matrices(model).items()}
    return {**packed, **dict(model.named_parameters())}


def _pack_embeddings(model: Any, layout: CodesLayout, group: int | None, dtype: torch.dtype) -> None:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {module: name for name, module in model.named_modules()}
    packed = PackedEmbedding((embedding.num_embeddings, embedding.embedding_dim), layout, group, dtype)
    tied = f"{names[head]}.weight" in model.all_tied_weights_keys
    bias, shape = _bias(head, dtype), (head.out_features, head.in_features)
    new_head = TiedHead(packed, bias) if tied else PackedHead(shape, layout, group, dtype, bias)
    model.set_submodule(names[embedding], packed)
    model.set_submodule(names[head], new_head)
    # transformers would look for the weights of both to tie them.
    model.all_tied_weights_keys, model._tied_weights_keys = {}, {}


def _linear(module: Any, settings: PackedSettings, dtype: torch.dtype) -> PackedLinear:
    shape, bias = (module.out_features, module.in_features), _bias(module, dtype)
    return PackedLinear(shape, settings.layout, settings.group, dtype, bias, settings.activations)


def _bias(module: Any, dtype: torch.dtype) -> nn.Parameter | None:
    return None if module.bias is None else nn.Parameter(torch.empty_like(module.bias, dtype=dtype), False)
