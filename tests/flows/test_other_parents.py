"""Qwen- and Mistral-style models, briefly trained, through all phases, each on what the one before made.

A run keeps the parent where a gate fails, and a model of three steps fails most; here every phase's result goes on.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from flows.chain import CHAIN
from flows.cli import main
from phases.checkpoint import Manifest, open_checkpoint, save_checkpoint
from phases.compression import quantizer  # noqa: F401  # registers how the agent's file is opened
from phases.data.config import DataConfig
from phases.data.prepare import prepare_data

SIZES = {
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 320},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024},
}
STYLES: dict[str, PreTrainedConfig] = {
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=False),
    "mistral": MistralConfig(**SIZES, head_dim=8, sliding_window=None, tie_word_embeddings=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_every_phase_takes_what_the_one_before_made(style: str, tiny_values: dict[str, Any], tmp_path: Path) -> None:
    data = prepare_data(DataConfig.parse(tiny_values["data"], "test"), None, tmp_path / "data")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(STYLES[style])
    base = save_checkpoint(tmp_path / "base", model, data.tokenizer, Manifest("base"))
    config = tmp_path / "own.yaml"
    own = {"cognate": {"base": str(base.path)}, "compression": {"row_tokens": 512}}
    both = {**tiny_values, **{name: {**tiny_values[name], **values} for name, values in own.items()}}
    config.write_text(yaml.safe_dump(both))
    tokens, before = torch.arange(24).view(1, 24), []
    for name in CHAIN:
        out = tmp_path / name
        given = ["--config", str(config), "--data", str(data.path), "--out", str(out)]
        assert main(["phase", name, *before, *given]) in (0, 1), name
        made = AutoModelForCausalLM.from_pretrained(out)
        assert made.config.model_type == style, name
        with torch.no_grad():
            logits = made(tokens).logits
        assert logits.shape == (1, 24, 320) and logits.isfinite().all(), name
        before = ["--input", str(out)]
    agent = open_checkpoint(tmp_path / "compression").siblings["agent"]
    settings = json.loads((agent.path / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == "forge_compressed"
    plain, packed = AutoModelForCausalLM.from_pretrained(out), agent.model()
    with torch.no_grad():
        torch.testing.assert_close(packed(tokens).logits, plain(tokens).logits, rtol=0.05, atol=0.05)
