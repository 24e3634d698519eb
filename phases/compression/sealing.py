"""A compressed model while it is loaded: layers give way to their bytes, and bytes, once read, to layers that decode.

contents = verify_file(file, model)
seal_layers(model, contents, header)        # on the meta device; transformers then reads the file
open_layers(model, contents, file)
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from phases.compression.file_format import MATRIX, Contents, Kind, books_of, split
from phases.compression.modules import Codebooks, LazyEmbedding, LazyLinear, Sealed
from phases.compression.rows import Rows, rows_of
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.packed.container import Header, refuse
from phases.packed.layout import CODECS
from phases.packed.modules import PackedLinear

BOOKS = "codebooks"
"""Module that the codebooks are read into."""


def matrix_shapes(model: Any) -> dict[str, tuple[int, int]]:
    """(O, I) of every layer that a codec may have; a tied head is its embedding."""
    tied = model.all_tied_weights_keys
    return {
        name: (module.weight.shape[0], module.weight.shape[1])
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, nn.Embedding) and f"{name}.weight" not in tied
    }


def kinds_of(contents: Contents, header: Header) -> dict[str, Kind]:
    """The kind of every matrix by the name of its layer. Raises `ValueError` for another number of matrices."""
    names = sorted(name for name in header.entries if name.endswith(MATRIX))
    kinds = [contents.kinds[index] for index in contents.kind_of]
    return {name.removesuffix(MATRIX): kind for name, kind in zip(names, kinds, strict=True)}


def seal_layers(model: Any, contents: Contents, header: Header) -> None:
    """Replace the layers whose weights are compressed by what the file has of them, in place."""
    kinds, names = kinds_of(contents, header), {module: name for name, module in model.named_modules()}
    head, embedding = model.get_output_embeddings(), names[model.get_input_embeddings()]
    tied = f"{names.get(head)}.weight" in model.all_tied_weights_keys and embedding in kinds
    with torch.device("meta"):
        for name, shape in {n: s for n, s in matrix_shapes(model).items() if n in kinds}.items():
            size, bias = header.entries[f"{name}{MATRIX}"].bytes, getattr(model.get_submodule(name), "bias", None)
            model.set_submodule(name, Sealed(shape, size, bias))
        if tied:
            model.set_submodule(names[head], Sealed((head.out_features, head.in_features), None, head.bias))
            # transformers would look for the weights of both to tie them.
            model.all_tied_weights_keys, model._tied_weights_keys = {}, {}
        shapes = [(1 + codec.residuals, codec.codebook_size, codec.vector) for codec in contents.codebooks]
        model.add_module(BOOKS, Codebooks(shapes))


def open_layers(model: Any, contents: Contents, header: Header, file: Path | str) -> None:
    """Replace what was read by layers that compute with it. Raises `CheckpointError` that names file and tensor."""
    read = {f"{BOOKS}.{name}": book for name, book in model.get_submodule(BOOKS).named_buffers()}
    books = {codec: book.cpu().float() for codec, book in books_of(contents, read).items()}
    delattr(model, BOOKS)
    embedding = model.get_input_embeddings()
    kinds, sealed = kinds_of(contents, header), {n: m for n, m in model.named_modules() if isinstance(m, Sealed)}
    opened: dict[str, nn.Module] = {}
    for name, module in sealed.items():
        if module.tied:
            continue
        try:
            opened[name] = _opened(module, kinds[name], books, contents.activations, model, module is embedding)
        except ValueError as error:
            refuse(file, f"{name}{MATRIX}: {error}")
    for name, module in sealed.items():
        if module.tied:
            lazy = next(opened[n] for n, m in sealed.items() if m is embedding)
            assert isinstance(lazy, LazyEmbedding), "an embedding is never packed"
            opened[name] = LazyLinear(lazy.matrix, model.dtype, module.bias)
    for name, layer in opened.items():
        model.set_submodule(name, layer.eval())


def _opened(
    sealed: Sealed,
    kind: Kind,
    books: dict[VPTQ, torch.Tensor],
    activations: bool,
    model: Any,
    is_embedding: bool,
) -> nn.Module:
    codec, dtype = kind.coding, model.dtype
    encoded = split(sealed.stored.cpu(), kind, sealed.shape)
    # A head of its own is no layer of the body: its inputs are not rounded.
    is_head = sealed is model.get_output_embeddings()
    if isinstance(codec, Ternary) and not is_embedding and not is_head:
        lattice = codec.lattice(encoded)
        packed = PackedLinear(sealed.shape, "trits", codec.group, dtype, sealed.bias, activations)
        packed.codes, packed.scale = CODECS["trits"].pack(lattice.codes_OI), lattice.scale_OG
        return packed.to(sealed.stored.device)
    matrix: Rows = rows_of(codec, encoded, books[codec] if isinstance(codec, VPTQ) else None)
    lazy = LazyEmbedding(matrix, dtype) if is_embedding else LazyLinear(matrix, dtype, sealed.bias)
    return lazy.to(sealed.stored.device)
