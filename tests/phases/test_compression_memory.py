"""Memory of a compressed model of the full profile's size, loaded and run in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from phases.bitnet.lattice import Lattice
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.compression.artefact import write_artefact
from phases.compression.entropy import decode_symbols, encode_symbols
from phases.compression.stored import Stored
from phases.compression.ternary import Ternary
from phases.packed.plan import WEIGHTS

HIDDEN = 384
CODEC = Ternary()
ALLOWANCE = 16_000_000
"""Bytes beside the file and one decoded layer: codes at 2 bits next to their stream, slices, activations, the heap."""
CHILD = """
import json, sys
import torch
from phases.checkpoint import load_model

def kilobytes(field):
    return int(next(line for line in open("/proc/self/status") if line.startswith(field)).split()[1])

def run(path):
    ids = torch.arange(16)[None]
    return load_model(path).generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)

torch.set_num_threads(1)
run(sys.argv[1])  # imports, and what is compiled on first use
before = kilobytes("VmRSS:")
made = run(sys.argv[2])
print(json.dumps({"tokens": made.shape[1], "bytes": 1024 * (kilobytes("VmHWM:") - before)}))
"""


def artefact(folder: Path, tokenizer: Any, vocabulary: int, layers: int) -> Checkpoint:
    """Random ternary codes in all matrices."""
    torch.manual_seed(0)
    sizes = {"vocab_size": vocabulary, "hidden_size": HIDDEN, "intermediate_size": 1024, "num_hidden_layers": layers}
    ends = {"num_attention_heads": 6, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **ends))
    source = save_checkpoint(folder / "source", model, tokenizer, Manifest("adas"))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    encoded = {}
    for name, weight in weights.items():
        if weight.ndim == 2:
            codes_OI = torch.randint(-1, 2, weight.shape, dtype=torch.int8)
            scale_OG = torch.full((len(weight), -(-weight.shape[1] // 128)), 0.02, dtype=torch.float16)
            encoded[name] = CODEC.store(Lattice(codes_OI, scale_OG, 128))
    plain = {name: weight.half() for name, weight in weights.items() if name not in encoded}
    return write_artefact(source, Stored(dict.fromkeys(encoded, CODEC), encoded, {}, plain), folder / "made")


@pytest.mark.parametrize("count", [3_000, 1_300_000])
def test_narrow_symbols_are_the_wide_ones(count: int) -> None:
    """Of few lanes and of many, which take different ways."""
    symbols = torch.randint(0, 3, (count,), generator=torch.Generator().manual_seed(0))
    stream = encode_symbols(symbols, 3)
    narrow = decode_symbols(stream, count, 3, np.int8)
    assert narrow.dtype == torch.int8 and torch.equal(narrow.long(), symbols)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from Linux's /proc")
def test_the_peak_is_the_file_and_one_decoded_layer(tiny_data: Any, tmp_path: Path) -> None:
    small = artefact(tmp_path / "small", tiny_data.tokenizer, 300, 1)
    large = artefact(tmp_path / "large", tiny_data.tokenizer, 32_000, 7)
    command = [sys.executable, "-c", CHILD, str(small.path), str(large.path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    packed, decoded = (large.path / WEIGHTS).stat().st_size, 4 * 32_000 * HIDDEN
    assert found["tokens"] > 16 and packed < 6_000_000
    assert found["bytes"] <= packed + decoded + ALLOWANCE, f"{found['bytes']:,} of {packed:,} and {decoded:,}"
