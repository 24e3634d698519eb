"""llama.cpp's own quantisation of a plain checkpoint: its file types, their bytes, weights and losses.

    quantised = quantise(parent, folder, text_NT)                # {"Q4_0": Quantised(…), …}, or None without llama.cpp

llama.cpp is looked for in this interpreter (`make llama`), or in the one that FORGE_LLAMA_PYTHON names. It quantises a
GGUF file of the parent; gguf's own arithmetic turns that back into weights, so that tasks are measured as everyone's,
and llama.cpp itself reads the text, with its kernels that round activations to 8 bits. Where rows do not fill a type's
blocks it takes another one on its own: the types that a file really has are told. Types that need an importance matrix
are left out.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import LlamaFileType

from phases.bitnet.config import Quantisation
from phases.bitnet.storage import TernaryFile
from phases.checkpoint import Checkpoint
from phases.packed.gguf_architecture import Architecture, architecture_of
from phases.packed.gguf_export import export_gguf
from tests.benchmarks.compression_rivals import Small, written

TYPES = {
    **{name: LlamaFileType[f"MOSTLY_{name}"] for name in ("Q8_0", "Q4_0", "Q4_K_M", "Q3_K_M", "Q2_K", "TQ1_0")},
    **{name: LlamaFileType[f"MOSTLY_{name}"] for name in ("IQ4_NL", "IQ3_S")},
}
PURE = " pure"
"""After the name of a type that every matrix is to have, the embeddings too, which llama.cpp else gives more bits."""
NAMES = (*TYPES, f"Q4_0{PURE}", f"IQ4_NL{PURE}")
WORKER = """
import ctypes, json, sys
import llama_cpp
import numpy as np

job, silent = json.load(sys.stdin), llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
found = {}
for name, (number, pure) in job["types"].items():
    params, out = llama_cpp.llama_model_quantize_default_params(), job["folder"] + "/" + name + ".gguf"
    params.ftype, params.pure, params.nthread = number, pure, 1
    if llama_cpp.llama_model_quantize(job["model"].encode(), out.encode(), ctypes.byref(params)):
        continue
    length = len(job["rows"][0])
    llama = llama_cpp.Llama(
        out, n_ctx=length, n_batch=length, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False
    )
    nats = []
    for row in job["rows"]:
        llama.reset()
        llama.eval(row[:-1])
        logits = llama.scores[: length - 1].astype(np.float64)
        peak = logits.max(-1)
        whole = np.log(np.exp(logits - peak[:, None]).sum(-1)) + peak
        nats.append(float((whole - logits[np.arange(length - 1), row[1:]]).sum()))
    found[name] = nats
    llama.close()
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Quantised:
    """One file type."""

    small: Small
    """Bytes of tensors and their names; the tokenizer and the hyperparameters of the GGUF file are not counted."""
    types: str
    """What its matrices really are, by the number of weights."""
    nats_N: npt.NDArray[np.float64]
    """Of every text block, by llama.cpp itself."""


def llama_python() -> str | None:
    """An interpreter that has llama.cpp."""
    named = os.environ.get("FORGE_LLAMA_PYTHON")
    return named or (sys.executable if importlib.util.find_spec("llama_cpp") else None)


def quantise(parent: Checkpoint, folder: Path, text_NT: torch.Tensor) -> dict[str, Quantised] | None:
    """Every type that llama.cpp could make; None where it is not installed."""
    python = llama_python()
    if python is None:
        return None
    model: Any = parent.model()
    plain = TernaryFile(quantisation=Quantisation(), ternary=(), embeddings=())
    source = export_gguf(parent, folder / "plain.gguf", parts=(plain, model)).path
    types = {name: (int(TYPES[name.removesuffix(PURE)]), name.endswith(PURE)) for name in NAMES}
    job = {"model": str(source), "folder": str(folder), "types": types, "rows": text_NT.tolist()}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    asked = [python, "-c", WORKER]
    done = subprocess.run(asked, input=json.dumps(job), capture_output=True, text=True, env=environment, check=True)
    losses = json.loads(done.stdout.splitlines()[-1])
    return {name: _read(folder / f"{name}.gguf", model, nats) for name, nats in losses.items()}


def _read(path: Path, model: Any, nats: list[float]) -> Quantised:
    architecture, tensors = architecture_of(model, str(path)), gguf.GGUFReader(path).tensors
    found = {tensor.name: tensor for tensor in tensors}
    weights, stored = {}, {}
    types: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        tensor = found[architecture.tensor_name(name, str(path))]
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()).float()
        weights[name] = _in_our_order(architecture, name, values.view(parameter.shape))
        stored[name] = torch.from_numpy(np.frombuffer(tensor.data.tobytes(), np.uint8).copy())
        if parameter.ndim > 1:
            types[tensor.tensor_type.name] += parameter.numel()
    shares: Mapping[str, int] = dict(types.most_common())
    shown = ", ".join(f"{count / sum(shares.values()):.0%} {kind}" for kind, count in shares.items())
    return Quantised(written(weights, stored), shown, np.array(nats))


def _in_our_order(architecture: Architecture, name: str, theirs: torch.Tensor) -> torch.Tensor:
    """The inverse of the order that rows have in the file."""
    place = architecture.in_row_order(name, torch.arange(theirs.numel()).view(theirs.shape))
    ours = torch.empty_like(theirs)
    ours.view(-1)[place.reshape(-1)] = theirs.reshape(-1)
    return ours
