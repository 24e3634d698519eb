"""Whole models that write: the packed ternary model against the same model in float32, through `generate`.

Three sizes: the default's (1 M parameters, where Python between the layers is most of the time), 25 M, and
four layers of width 1024. The weights are random: a token's time does not depend on them.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.storage import ternary_files
from phases.checkpoint import Manifest, save_checkpoint
from phases.packed.file import load_packed, pack_checkpoint
from tests.benchmarks import inputs
from tests.benchmarks.pairs import Comparison, compare

TOKENS = 48
SIZES = {
    "1 M parameters": {"vocab_size": 2048, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4},
    "25 M parameters": {"vocab_size": 32000, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8},
    "width 1024": {"vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 4},
}
HEADS = {"1 M parameters": 4, "25 M parameters": 6, "width 1024": 16}
TARGETS = {"1 M parameters": 1.0, "25 M parameters": 1.0, "width 1024": 2.0}
"""Faster than full precision; twice as fast where layers are 1024 and wider."""


@torch.inference_mode()
def run(pairs: int) -> list[Comparison]:
    """Tokens a second of each size."""
    with tempfile.TemporaryDirectory() as folder:
        return [_size(name, Path(folder), pairs) for name in SIZES]


def _size(name: str, folder: Path, pairs: int) -> Comparison:
    heads = HEADS[name]
    config = LlamaConfig(
        **SIZES[name],
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        tie_word_embeddings=True,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    quantised = Quantised(model, Quantisation())
    tensors, texts = ternary_files(quantised)
    quantised.fold()
    place = folder / name.replace(" ", "_")
    source = save_checkpoint(place, model, inputs.data(2048, 256).tokenizer, Manifest("bitnet"), tensors, texts)
    packed = load_packed(pack_checkpoint(source, place.with_suffix(".packed")).path)
    return compare(
        f"decoding, {name}",
        "tokens/s",
        TOKENS,
        lambda: _write(packed),
        "float32",
        lambda: _write(model),
        target=TARGETS[name],
        pairs=pairs,
    )


def _write(model: Any) -> None:
    prompt = torch.arange(1, 17).unsqueeze(0)
    written = model.generate(prompt, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
    assert written.shape[1] == 16 + TOKENS
