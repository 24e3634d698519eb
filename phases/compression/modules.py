"""Layers whose weights are made where they are used: at each call from what is stored, in float32, and then forgotten.

A head, and any other large matrix, is made in slices of a million weights, an embedding row by row as it is asked for,
so that a model needs the memory of its stored form and of one slice. With the kernel `exact` a layer makes its whole
matrix, since slices may be summed in another order. A tied head and its embedding keep the same `Rows`.

Ternary linear layers are no business of this file: they become `PackedLinear`, which has kernels of its own.

Milliseconds a token of 1.0 M parameters, embedding and head (2048, 128) of VPTQ (vector 6), one thread of a busy
machine (median of 40): float32 5.0; with a ternary body 6.7, of VPTQ (vector 8) 12, of hyper-compression at 3 bits 57,
of SeedLM at 3 bits 86. The last two unpack numbers of a few bits at every call.
"""

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from phases.compression.rows import Rows
from phases.errors import TrainingError
from phases.packed.kernels import Preference
from phases.packed.modules import SLICE_WEIGHTS, PackedLinear


class Sealed(nn.Module):
    """Stands for a layer while a file is loaded: its bytes, which the file has by this name, and its bias."""

    stored: torch.Tensor

    def __init__(self, shape: tuple[int, int], stored_bytes: int | None, bias: nn.Parameter | None) -> None:
        """On the meta device; without bytes it is a head that its embedding has the weights of."""
        super().__init__()
        self.shape, self.bias, self.tied = shape, bias, stored_bytes is None
        if stored_bytes is not None:
            self.register_buffer("stored", torch.empty(stored_bytes, dtype=torch.uint8))


class Codebooks(nn.Module):
    """Stands for the codebooks while a file is loaded."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        for number, shape in enumerate(shapes):
            self.register_buffer(str(number), torch.empty(shape, dtype=torch.float16))


class LazyMatrix(nn.Module):
    """An (O, I) matrix that is stored compressed."""

    compute: torch.Tensor
    """Empty; its dtype and device are those of the results, as they follow `model.to`."""

    def __init__(self, matrix: Rows, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix = matrix
        self.register_buffer("compute", torch.empty(0, dtype=dtype), persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """(O, I) float32, made anew at each access."""
        return self.rows(slice(None))

    def rows(self, index: torch.Tensor | slice) -> torch.Tensor:
        """(N, I) float32 of some rows."""
        # Decoding is the processor's, also where all else is on a GPU.
        index = index if isinstance(index, slice) else index.cpu()
        return self.matrix.rows(index).to(self.compute.device)

    def train(self, mode: bool = True) -> Self:
        """Evaluation only."""
        if mode:
            raise TrainingError("compressed weights cannot be trained; train the checkpoint that was compressed")
        return super().train(mode)

    def extra_repr(self) -> str:
        return f"{self.matrix.shape[0]}×{self.matrix.shape[1]}, {type(self.matrix).__name__}, {self.matrix.bytes} bytes"


class LazyEmbedding(LazyMatrix):
    """An embedding."""

    def __init__(self, matrix: Rows, dtype: torch.dtype) -> None:
        super().__init__(matrix, dtype)
        self.num_embeddings, self.embedding_dim = matrix.shape

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(…) ids to (…, I)."""
        return self.rows(ids.flatten()).to(self.compute.dtype).view(*ids.shape, -1)


class LazyLinear(LazyMatrix):
    """A linear layer or a head. Its bias, where it has one, is an ordinary parameter."""

    def __init__(self, matrix: Rows, dtype: torch.dtype, bias: nn.Parameter | None) -> None:
        super().__init__(matrix, dtype)
        self.out_features, self.in_features = matrix.shape
        self.bias = bias
        self.kernel: Preference = "exact"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, I) to (…, O)."""
        wide, bias = x.float(), None if self.bias is None else self.bias.float()
        if self.kernel == "exact" or self.out_features * self.in_features <= SLICE_WEIGHTS:
            return F.linear(wide, self.weight, bias).to(x.dtype)
        y, rows = wide.new_empty(*x.shape[:-1], self.out_features), max(1, SLICE_WEIGHTS // self.in_features)
        for start in range(0, self.out_features, rows):
            part = slice(start, start + rows)
            y[..., part] = F.linear(wide, self.rows(part))
        return (y if bias is None else y + bias).to(x.dtype)


def use_kernel(model: nn.Module, kernel: Preference) -> None:
    """Let all layers of a model compute with another kernel: `exact`, `auto`, or one of ternary layers by name."""
    for module in model.modules():
        if isinstance(module, PackedLinear):
            module.use(kernel)
        elif isinstance(module, LazyLinear):
            module.kernel = kernel
