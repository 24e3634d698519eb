"""GGUF: a ternary checkpoint as one file that llama.cpp runs, with every weight what it was.

    export_gguf(open_checkpoint("checkpoints/laptop/bitnet"), Path("model.gguf"))

Weights, embeddings, norms, tokenizer, chat template and hyperparameters go in. Nothing is quantised here: codes and
scales are the lattice's, and the finished file is read back and compared with the checkpoint, weight by weight,
before it gets its name. llama.cpp rounds the *inputs* of its integer kernels to 8 bits, so that its logits differ
slightly from transformers'.
"""

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from gguf import GGML_QUANT_VERSION, GGUFReader, GGUFWriter, LlamaFileType

from phases.bitnet.storage import SETTINGS, TernaryFile, read_settings
from phases.checkpoint import Checkpoint
from phases.errors import CheckpointError, StorageError
from phases.packed.gguf_architecture import (
    Architecture,
    architecture_of,
    rotary_factors,
    write_hyperparameters,
)
from phases.packed.gguf_tensors import GgufTensor, TernaryType, check_exact, encode
from phases.packed.gguf_tokenizer import write_tokenizer
from phases.storage import explain_os_errors, fsync_path
from phases.strict import StrictModel

_FILE_TYPES = {
    "TQ2_0": LlamaFileType.MOSTLY_TQ2_0,
    "TQ1_0": LlamaFileType.MOSTLY_TQ1_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
    "F16": LlamaFileType.MOSTLY_F16,
}
log = logging.getLogger("phases.packed")
ROTARY_FACTORS = "rope_freqs.weight"


class GgufReport(StrictModel):
    """What was written."""

    path: Path
    """The file."""
    file_bytes: int
    """Its size."""
    tensor_bytes: dict[str, int]
    """Bytes of all tensors of a type, by GGUF's name of the type (`TQ2_0`, `Q8_0`, `F32`, …)."""
    types: dict[str, str]
    """The type of every tensor, by its name in the file."""

    @property
    def metadata_bytes(self) -> int:
        """Tokenizer, hyperparameters and padding."""
        return self.file_bytes - sum(self.tensor_bytes.values())


def export_gguf(
    source: Checkpoint, out: Path, ternary_type: TernaryType = "auto", parts: tuple[TernaryFile, Any] | None = None
) -> GgufReport:
    """Write a ternary checkpoint to the file `out`, which must not exist.

    `parts`: its lattices and its model, of a checkpoint that does not have them as a ternary one does.

    `ternary_type` "auto" takes for every ternary tensor the fastest type that holds it exactly: TQ2_0, else Q4_0,
    else F16. Raises `CheckpointError` for a checkpoint that is not ternary or that llama.cpp cannot run alike,
    `InputError` for a type that a tensor does not fit, `StorageError` when `out` exists or cannot be written.
    """
    where = str(source.path)
    if out.exists():
        raise StorageError(f"{out}: exists already; choose another --out or delete it")
    file, model = parts or (read_settings(source.path), source.model())
    architecture = architecture_of(model, where)
    weights = _weights(model, architecture, where)
    _check_names(file, weights, where)
    if model.generation_config.suppress_tokens:
        log.warning("%s: GGUF cannot say which tokens are never written; llama.cpp may write delimiters", where)
    try:
        tensors = {name: encode(known, name, weight, file, ternary_type) for name, (known, weight) in weights.items()}
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    writer = GGUFWriter(None, architecture.name)
    writer.add_name(source.path.resolve().name)
    writer.add_string("forge.checkpoint.sha256", source.digest)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_file_type(_file_type(tensors, weights, file))
    write_hyperparameters(writer, architecture, where)
    write_tokenizer(writer, source.tokenizer(), architecture.config.vocab_size, where)
    for tensor in tensors.values():
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.kind)
    _write(writer, out, weights)
    return _report(out, tensors)


Weights = dict[str, tuple[str, torch.Tensor]]
"""By name in the file: the name in the checkpoint, and the tensor in llama.cpp's row order."""


def _weights(model: Any, architecture: Architecture, where: str) -> Weights:
    found: Weights = {}
    for name, parameter in model.named_parameters():
        weight = architecture.in_row_order(name, parameter.detach())
        found[architecture.tensor_name(name, where)] = (name, weight)
    factors = rotary_factors(model)
    if factors is not None:
        found[ROTARY_FACTORS] = (ROTARY_FACTORS, torch.from_numpy(factors))
    return found


def _check_names(file: TernaryFile, weights: Weights, where: str) -> None:
    known = {name for name, _ in weights.values()}
    missing = sorted({*file.ternary} - known)
    if missing:
        raise CheckpointError(
            f"{where}: {SETTINGS} names {missing[0]}, which is not in the model; restore the checkpoint from a copy"
        )


def _file_type(tensors: dict[str, GgufTensor], weights: Weights, file: TernaryFile) -> LlamaFileType:
    """The label that llama.cpp prints: the type that most ternary weights have."""
    sizes: Counter[str] = Counter()
    for name, tensor in tensors.items():
        known, weight = weights[name]
        if known in file.ternary:
            sizes[tensor.kind.name] += weight.numel()
    return _FILE_TYPES[sizes.most_common(1)[0][0]] if sizes else LlamaFileType.GUESSED


def _write(writer: GGUFWriter, out: Path, weights: Weights) -> None:
    """Write to a temporary name, read back, rename. A failure leaves nothing."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with explain_os_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            try:
                writer.write_header_to_file(temporary)
                writer.write_kv_data_to_file()
                writer.write_tensors_to_file()
            finally:
                writer.close()
            _read_back(temporary, weights)
            fsync_path(temporary)
            temporary.rename(out)
            fsync_path(out.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _read_back(path: Path, weights: Weights) -> None:
    found = GGUFReader(path).tensors
    assert {tensor.name for tensor in found} == weights.keys(), f"{path}: tensors are missing"
    for tensor in found:
        check_exact(tensor.name, tensor.data, tensor.tensor_type, weights[tensor.name][1])


def _report(out: Path, tensors: dict[str, GgufTensor]) -> GgufReport:
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        sizes[tensor.kind.name] += tensor.data.nbytes
    types = {tensor.name: tensor.kind.name for tensor in tensors.values()}
    return GgufReport(path=out, file_bytes=out.stat().st_size, tensor_bytes=dict(sizes), types=types)
