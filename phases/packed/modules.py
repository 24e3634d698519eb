"""Layers whose weights stay packed in memory: linear, embedding, and a head that shares the embedding's tensors.

Codes and scales are buffers, as nothing of them is trained; scales stay float16 whatever the model is cast to. The
weights that they stand for are products in float32, rounded once to the dtype of computation: what plain
`from_pretrained` of the ternary checkpoint gives, bit for bit. With the kernel `exact` a layer multiplies with those,
made anew at each call, and its results are those of the ternary checkpoint. (For a single token MKL sums in an order
that depends on where weights lie in memory: there, compare with a `copy.deepcopy` of the plain model, whose weights
lie as ours do, and not where a file is mapped.) Other kernels lay ternary codes out anew at the first call, 2 bits a
weight, in place of the packed ones; moving the model packs them again.

Shapes: O rows, I columns, G groups a row.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from phases.bitnet.lattice import Lattice
from phases.errors import TrainingError
from phases.packed.head import MOST_TOKENS, has_row_products, row_products
from phases.packed.kernels import Preference, Prepared, choose_kernel
from phases.packed.kernels.layout import unpack
from phases.packed.layout import CODECS, CodesLayout, Shape, scale_shape

SLICE_WEIGHTS = 2**20
"""Weights of a head that are unpacked at a time: as a cache holds, yet slices worth waking the threads for."""


class PackedMatrix(nn.Module):
    """An (O, I) matrix of packed codes with its scales. Loading fills both."""

    codes: torch.Tensor
    scale: torch.Tensor
    compute: torch.Tensor
    """Empty; its dtype is the one that weights are rounded to, as it follows `model.to(dtype)`."""

    def __init__(self, shape: Shape, layout: CodesLayout, group: int | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape, self.layout, self.group, codec = shape, layout, group, CODECS[layout]
        self.register_buffer("codes", torch.empty(codec.stored(shape), dtype=codec.dtype))
        self.register_buffer("scale", torch.empty(scale_shape(shape, group), dtype=torch.float16))
        self.register_buffer("compute", torch.empty(0, dtype=dtype), persistent=False)

    def lattice(self) -> Lattice:
        """Codes and scales, unpacked."""
        return Lattice(CODECS[self.layout].decode(self.codes, self.shape), self.scale, self.group)

    @property
    def weight(self) -> torch.Tensor:
        """(O, I) weights in the dtype of computation, made anew at each access."""
        return self.lattice().dequantise().to(self.compute.dtype)

    def train(self, mode: bool = True) -> Self:
        """Evaluation only."""
        if mode:
            raise TrainingError("packed weights cannot be trained; train the ternary checkpoint and pack it again")
        return super().train(mode)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        scale = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.scale.dtype != scale.dtype:  # `model.to(torch.bfloat16)` would round the scales
            self.scale = scale.to(self.scale.device)
        return self

    def extra_repr(self) -> str:
        return f"{self.shape[0]}×{self.shape[1]}, layout={self.layout}, group={self.group}"


class PackedLinear(PackedMatrix):
    """A ternary linear layer. Its bias, where it has one, is an ordinary parameter."""

    def __init__(
        self,
        shape: Shape,
        layout: CodesLayout,
        group: int | None,
        dtype: torch.dtype,
        bias: nn.Parameter | None,
        activations: bool,
    ) -> None:
        super().__init__(shape, layout, group, dtype)
        self.out_features, self.in_features = shape
        self.bias, self.activations = bias, activations
        self.kernel: Preference = "exact"
        self.prepared: Prepared | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, I) to (…, O)."""
        if self.kernel == "exact":
            return F.linear(x, self.weight, self.bias)
        kernel = choose_kernel(x.device, self.kernel, "int8" if self.activations else "exact")
        if self.prepared is None:
            self.prepared = kernel.prepare(self.lattice())
            if self.prepared.kernel == "tiles":  # which hold all that the packed codes do
                self.codes = self.codes.new_empty(0)
        return kernel.linear(x, self.prepared, self.bias)

    def lattice(self) -> Lattice:
        """Codes and scales, unpacked."""
        if self.prepared is None or self.prepared.kernel != "tiles":
            return super().lattice()
        return Lattice(unpack(self.prepared).sign().to(torch.int8), self.scale, self.group)

    def use(self, kernel: Preference) -> None:
        """Compute with another kernel from now on."""
        self._restore()
        self.kernel = kernel

    def _restore(self) -> None:
        """Pack the codes again, if a kernel has them."""
        if self.prepared is not None:
            self.codes, self.prepared = CODECS[self.layout].pack(self.lattice().codes_OI), None

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        self._restore()
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self._restore()
        super()._save_to_state_dict(destination, prefix, keep_vars)


def kernel_of(model: Any) -> str | None:
    """What multiplies with a model's ternary weights, as the log calls it; None for a model that is not packed."""
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
    if not layers:
        return None
    first = layers[0]
    if first.kernel == "exact":
        return "exact"
    kernel = choose_kernel(first.scale.device, first.kernel, "int8" if first.activations else "exact")
    detail = getattr(kernel, "instructions", None)
    return f"{kernel.name}, {detail}" if detail else kernel.name


class PackedRows(PackedMatrix):
    """A matrix of 8- or 4-bit codes, of which single rows can be unpacked."""

    def rows(self, index: torch.Tensor | slice) -> torch.Tensor:
        """(N, I) weights of some rows; the others stay packed."""
        codes = _take(self.codes, index)
        codes = CODECS[self.layout].decode(codes, (len(codes), self.shape[1]))
        scale = self.scale if self.group is None else _take(self.scale, index)
        return Lattice(codes, scale, self.group).dequantise().to(self.compute.dtype)

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None, kernel: Preference) -> torch.Tensor:
        """(…, I) to (…, O). `exact` unpacks the whole matrix, as slices of it may be summed in another order."""
        if kernel == "exact":
            return F.linear(x, self.weight, bias)
        flat = x.flatten(0, -2)
        if self.layout == "8bit" and len(flat) <= MOST_TOKENS and has_row_products(x.device):
            y = row_products(flat, self.codes, self.scale, self.group).to(x.dtype)
        else:
            y = self._by_slices(flat)
        y = y.view(*x.shape[:-1], -1)
        return y if bias is None else y + bias

    def _by_slices(self, x_ND: torch.Tensor) -> torch.Tensor:
        y, rows = x_ND.new_empty(len(x_ND), self.shape[0]), max(1, SLICE_WEIGHTS // self.shape[1])
        for start in range(0, self.shape[0], rows):
            part = slice(start, start + rows)
            y[:, part] = F.linear(x_ND, self.rows(part))
        return y


class PackedEmbedding(PackedRows):
    """An embedding: only the rows that are asked for are unpacked."""

    def __init__(self, shape: Shape, layout: CodesLayout, group: int | None, dtype: torch.dtype) -> None:
        super().__init__(shape, layout, group, dtype)
        self.num_embeddings, self.embedding_dim = shape

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(…) ids to (…, I)."""
        return self.rows(ids.flatten()).view(*ids.shape, -1)


class PackedHead(PackedRows):
    """An output head with weights of its own."""

    def __init__(
        self, shape: Shape, layout: CodesLayout, group: int | None, dtype: torch.dtype, bias: nn.Parameter | None
    ) -> None:
        super().__init__(shape, layout, group, dtype)
        self.out_features, self.in_features = shape
        self.bias = bias
        self.kernel: Preference = "exact"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, I) to (…, O)."""
        return self.linear(x, self.bias, self.kernel)


class TiedHead(nn.Module):
    """An output head that is tied to a packed embedding: no weights of its own."""

    def __init__(self, embedding: PackedEmbedding, bias: nn.Parameter | None) -> None:
        super().__init__()
        # In a tuple, so that it is no submodule: the tensors would stand in the state dict twice, and
        # `model.to(device)` would make two copies of them.
        self._tied = (embedding,)
        self.out_features, self.in_features = embedding.shape
        self.bias = bias
        self.kernel: Preference = "exact"

    @property
    def weight(self) -> torch.Tensor:
        """(O, I) weights of the embedding, made anew at each access."""
        return self._tied[0].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, I) to (…, O)."""
        return self._tied[0].linear(x, self.bias, self.kernel)


def use_kernel(model: Any, kernel: Preference) -> None:
    """Let all packed layers of a model compute with another kernel: `exact`, `auto`, or one by name."""
    for module in model.modules():
        if isinstance(module, PackedLinear):
            module.use(kernel)
        elif isinstance(module, (PackedHead, TiedHead)):
            module.kernel = kernel


def _take(matrix: torch.Tensor, index: torch.Tensor | slice) -> torch.Tensor:
    # Not by indexing with the tensor: it takes negative ids from the end, where an embedding refuses them.
    return matrix[index] if isinstance(index, slice) else matrix.index_select(0, index)
