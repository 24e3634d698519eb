"""`forge export`: a ternary checkpoint or an agent for transformers, for llama.cpp, or as plain weights.

    forge export checkpoints/laptop/bitnet --format packed --out agent
    forge export checkpoints/laptop/bitnet --format gguf --out agent.gguf
    forge export checkpoints/laptop/agent --format gguf --out agent.gguf
    forge export checkpoints/laptop/agent --dequantise --out plain

What was written is read back and compared with the checkpoint, weight by weight, before it gets its name.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from phases.errors import InputError, StorageError

if TYPE_CHECKING:
    from phases.checkpoint import Checkpoint

Rows = dict[str, int]
"""Bytes by kind."""


def export(arguments: argparse.Namespace) -> int:
    """Write the file and say how its bytes are spent."""
    from evaluation.latency import count_parameters
    from phases.checkpoint import open_checkpoint

    _check(arguments)
    source = open_checkpoint(arguments.checkpoint)
    write = _plain if arguments.dequantise else _packed if arguments.format == "packed" else _gguf
    try:
        by_kind = write(source, arguments)
    except FileNotFoundError:  # /proc and the like refuse new names this way
        raise StorageError(f"{arguments.out}: no such folder, and it cannot be made; choose another --out") from None
    parameters = _parameters(source) if _compressed(source) else count_parameters(source.path)[0]
    size = sum(by_kind.values())
    if arguments.json:
        form = "plain" if arguments.dequantise else arguments.format
        made = {"path": str(arguments.out), "format": form, "bytes": size, "by_kind": by_kind}
        print(json.dumps({**made, "parameters": parameters, "bits_per_parameter": 8 * size / parameters}, indent=2))
        return 0
    _print(by_kind, parameters, arguments.out)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise `InputError` for options of the other format, and `StorageError` for a name that is taken."""
    for option, belongs in (("type", "gguf"), ("layout", "packed")):
        if getattr(arguments, option) is not None and arguments.format != belongs:
            raise InputError(f"--{option} belongs to --format {belongs}; leave it out")
    if arguments.out.exists():
        raise StorageError(f"{arguments.out}: exists already; choose another --out or delete it")


def _compressed(source: "Checkpoint") -> bool:
    config = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
    return bool(config.get("quantization_config", {}).get("quant_method") == "forge_compressed")


def _parameters(source: "Checkpoint") -> int:
    """Weights that a compressed file stands for."""
    from phases.compression.artefact import read_stored

    stored = read_stored(source.path)[0]
    return sum(tensor.numel() for tensor in stored.weights().values())


def _plain(source: "Checkpoint", arguments: argparse.Namespace) -> Rows:
    from phases.compression.artefact import dequantise

    if not _compressed(source):
        raise InputError(f"{source.path}: not compressed; give the agent that the compression phase wrote")
    made = dequantise(source.path, arguments.out)
    return {"float32": (made.path / "model.safetensors").stat().st_size}


def _packed(source: "Checkpoint", arguments: argparse.Namespace) -> Rows:
    from phases.packed.file import pack_checkpoint
    from phases.packed.sizes import measure_bytes

    if _compressed(source):
        raise InputError(f"{source.path}: smaller than packed already; choose --format gguf or --dequantise")
    made = pack_checkpoint(source, arguments.out, arguments.layout or "trits")
    return {kind.replace("_", " "): size for kind, size in asdict(measure_bytes(made.path)).items() if size}


def _gguf(source: "Checkpoint", arguments: argparse.Namespace) -> Rows:
    from phases.compression.artefact import gguf_parts
    from phases.packed.gguf_export import export_gguf

    parts = gguf_parts(source.path) if _compressed(source) else None
    if parts is not None and not parts[0].ternary and arguments.type not in (None, "auto"):
        raise InputError(f"{source.path}: no layer is ternary, so there is nothing of --type; leave it out")
    report = export_gguf(source, arguments.out, arguments.type or "auto", parts)
    return {**report.tensor_bytes, "metadata": report.metadata_bytes}


def _print(by_kind: Rows, parameters: int, out: Path) -> None:
    from evaluation.render import text_table

    size = sum(by_kind.values())
    rows = [(kind, f"{count:,}", f"{count / size:.1%}") for kind, count in by_kind.items()]
    print(text_table(("tensors", "bytes", "share"), [*rows, ("file", f"{size:,}", "100.0%")]))
    print(f"\n{8 * size / parameters:.3f} bits a parameter, {4 * parameters / size:.2f} times smaller than float32")
    print(f"written: {out}")
