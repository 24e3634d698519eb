"""Has a ternary model stayed ternary: the gates of every phase that trains one on."""

from typing import Any

from evaluation.metric import Gate, gate
from evaluation.packed_file import PackedFile, file_gates, inspect_packed
from phases.bitnet.storage import count_off_lattice, is_ternary, read_settings
from phases.bitnet.tensors import ternary_names
from phases.checkpoint import Checkpoint


def lattice_gates(
    name: str, checkpoint: Checkpoint, parent: Checkpoint, model: Any
) -> tuple[PackedFile | None, list[Gate]]:
    """The packed form and its gates, when the parent was ternary: then the model has to be."""
    if not is_ternary(parent.path):
        return None, []
    same = read_settings(checkpoint.path).quantisation == read_settings(parent.path).quantisation
    packed = inspect_packed(checkpoint)
    off = count_off_lattice(checkpoint.path, ternary_names(model))
    return packed, [*file_gates(name, off, packed), gate("on the parent's lattice", f"{name}/lattice", same, ">=", 1)]
