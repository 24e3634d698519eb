"""Merging checkpoints: the memory, bytes and hours that it takes on a machine without an accelerator.

A merge reads every parent once and writes one checkpoint; the arithmetic on each element is so little that the disk
decides. mergekit (Goddard et al. 2024, arXiv 2403.13257) works tensor by tensor: memory holds the largest tensor of
each parent, the result, and a float32 working copy of each, not the models. Methods on task vectors (TIES, DARE) read
the base model besides.
"""

from dataclasses import dataclass

from deployment.model import LayerGroup, Model
from deployment.physics.weights import checkpoint_bytes
from phases.errors import InputError

DISK_BANDWIDTH = 500e6
"""Bytes per second, read or written: a cloud's general-purpose SSD volume (AWS gp3 at 500 MB/s provisioned)."""
WORKING_BYTES = 4
"""A working copy's bytes an element."""


@dataclass(frozen=True, slots=True)
class MergeCost:
    """What a merge takes."""

    read_bytes: float
    written_bytes: float
    memory_bytes: float
    """Peak of the largest tensor's merge."""
    hours: float
    cost: float
    """In the price's currency."""


def merge_cost(
    model: Model,
    parents: int,
    price_per_hour: float,
    *,
    with_base: bool = False,
    disk_bandwidth: float = DISK_BANDWIDTH,
) -> MergeCost:
    """Merge `parents` models of this shape on a machine at `price_per_hour`.

    Raises InputError for fewer than two parents, or a bandwidth or price that cannot be.
    """
    if parents < 2:
        raise InputError(f"parents = {parents}: a merge has at least 2")
    if disk_bandwidth <= 0 or price_per_hour < 0:
        raise InputError(f"disk_bandwidth = {disk_bandwidth}, price = {price_per_hour}: above 0, and 0 or more")
    size, sources = checkpoint_bytes(model), parents + with_base
    stored_bytes = size / model.parameters
    memory = largest_tensor(model) * (sources + 1) * (stored_bytes + WORKING_BYTES)
    hours = (sources + 1) * size / disk_bandwidth / 3600
    return MergeCost(sources * size, size, memory, hours, hours * price_per_hour)


def largest_tensor(model: Model) -> int:
    """Elements of the largest matrix: an embedding, or one of a layer's (a third of an MLP or of an expert)."""
    return max([model.vocabulary * model.hidden, *(_largest(group) for group in model.layers)])


def _largest(group: LayerGroup) -> int:
    return max(group.mixer_parameters // 2, group.dense_parameters // 3, group.expert_parameters // 3)
