"""The mixing head of a parent that thinks (Quiet-STaR): it rides along in float16, and is charged as weights are.

    head = thoughts_of(parent.path)
    head.numbers, head.size

Its weight of a thought is a sigmoid, which float16 moves by less than .001. At width 128 it is 49,537 numbers and
99 kB, half of what a model of 1 M parameters has at a twentieth: the model beside it gets so much less.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from phases.compression.stored import check_storable
from phases.errors import CheckpointError
from phases.quiet_star.storage import HEAD


@dataclass(frozen=True)
class Thoughts:
    """What thinking takes besides the model's weights."""

    tensors: Mapping[str, torch.Tensor]
    """float16; none of a model that does not think."""

    @property
    def file(self) -> bytes:
        """Of `HEAD` as it is written."""
        return bytes(save(dict(self.tensors)))

    @property
    def numbers(self) -> int:
        """Weights and biases."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def size(self) -> int:
        """Of the file, header and all; 0 where there is none."""
        return len(self.file) if self.tensors else 0


def thoughts_of(path: Path) -> Thoughts:
    """Of a checkpoint. Raises `CheckpointError` for a file that is damaged, or not finite in float16."""
    if not (path / HEAD).is_file():
        return Thoughts({})
    try:
        tensors = load_file(path / HEAD)
    except SafetensorError as error:
        raise CheckpointError(f"{path / HEAD}: truncated or altered ({error}); restore it from a copy") from None
    check_storable(tensors, path / HEAD)
    return Thoughts({name: tensor.half() for name, tensor in tensors.items()})
