"""What the export tells llama.cpp of an architecture: row order, hyperparameters, rotary factors; what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, Qwen2Config

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.errors import CheckpointError
from phases.packed.gguf_architecture import architecture_of, context_tokens, rotary_factors
from phases.packed.gguf_export import GgufReport, export_gguf

Export = Callable[..., GgufReport]


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and dequantised tensors, by gguf's own code."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    return {name: field.contents() for name, field in reader.fields.items()}, tensors


def test_rows_turn_neighbours_as_llama_cpp_does(make_model: Any) -> None:
    """Rotating halves (transformers) and rotating neighbours (llama.cpp) give the same scores after the reordering."""
    model = make_model("llama", 64)
    layer, x = model.model.layers[0].self_attn, torch.randn(5, 64)
    angle = torch.outer(torch.arange(5.0), model.model.rotary_emb.inv_freq)  # (T, D/2)

    def heads(projection: Any, name: str) -> torch.Tensor:
        architecture = architecture_of(model, "here")
        weight = architecture.in_row_order(f"layers.0.{name}.weight", projection.weight.detach())
        head_THD = (x @ weight.T).view(5, -1, 8, 2)  # pairs of neighbours
        a, b = head_THD.unbind(-1)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(2)

    def reference(projection: Any) -> torch.Tensor:
        a, b = (x @ projection.weight.detach().T).view(5, -1, 2, 8).unbind(2)  # halves
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    ours = torch.einsum("qhd,khd->hqk", heads(layer.q_proj, "q_proj")[:, :2], heads(layer.k_proj, "k_proj"))
    theirs = torch.einsum("qhd,khd->hqk", reference(layer.q_proj)[:, :2], reference(layer.k_proj))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("kind", "permuted"), [("llama", True), ("mistral", True), ("qwen2", False), ("qwen3", False)])
def test_only_llama_rows_are_reordered(kind: str, permuted: bool, make_model: Any, exported: Export) -> None:
    model = make_model(kind, 64, **({"attention_bias": True} if kind == "llama" else {}))
    fields, tensors = read(exported(model).path)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    assert fields["general.architecture"] == ("llama" if permuted else kind)
    for tensor, name in (("attn_q", "q_proj"), ("attn_k", "k_proj"), ("attn_v", "v_proj"), ("attn_output", "o_proj")):
        source, found = weights[f"model.layers.1.self_attn.{name}.weight"].numpy(), tensors[f"blk.1.{tensor}.weight"]
        assert np.array_equal(source, found) == (not permuted or name in ("v_proj", "o_proj"))
        bias = weights.get(f"model.layers.1.self_attn.{name}.bias")
        assert (f"blk.1.{tensor}.bias" in tensors) == (bias is not None)
    if permuted:
        source = weights["model.layers.1.self_attn.q_proj.weight"].numpy()
        found = tensors["blk.1.attn_q.weight"]
        assert np.array_equal(found[0::2][:8], source[:8]) and np.array_equal(found[1::2][:8], source[8:16])


def test_metadata(make_model: Any, write_ternary: Any, tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}
    model = make_model("qwen3", 64, rms_norm_eps=1e-5, rope_parameters=rope)
    checkpoint = write_ternary(Quantised(model, Quantisation(group=32)), tmp_path / "tiny")
    fields, _ = read(export_gguf(checkpoint, tmp_path / "out" / "model.gguf").path)
    expected = {
        "general.name": "tiny",
        "general.file_type": 2,
        "forge.checkpoint.sha256": checkpoint.digest,
        "qwen3.block_count": 2,
        "qwen3.context_length": 128,
        "qwen3.embedding_length": 64,
        "qwen3.feed_forward_length": 192,
        "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 16,
        "qwen3.attention.value_length": 16,
        "qwen3.rope.dimension_count": 16,
        "qwen3.rope.freq_base": 5000.0,
        "qwen3.rope.scaling.type": "linear",
        "qwen3.rope.scaling.factor": 2.0,
        "qwen3.vocab_size": 257,
    }
    assert {key: fields[key] for key in expected} == expected
    assert fields["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)


def test_llama_3_scaling_becomes_factors_of_the_frequencies(make_model: Any) -> None:
    """arXiv 2407.21783: high frequencies stay, low ones are divided by the factor."""
    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    factors = rotary_factors(make_model("llama", 64, rope_parameters=rope))
    assert factors is not None and factors[0] == 1 and factors[-1] == pytest.approx(8, rel=1e-6)
    assert np.all(np.diff(factors) > -1e-6)
    assert rotary_factors(make_model("llama", 64)) is None


def test_the_context_ends_with_a_sliding_window(make_model: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert context_tokens(make_model("mistral", sliding_window=48).config, "here") == 48
    assert "no sliding window" in caplog.text
    assert context_tokens(make_model("mistral", sliding_window=None).config, "here") == 128
    assert context_tokens(make_model("llama").config, "here") == 128
    assert context_tokens(Qwen2Config(sliding_window=48, use_sliding_window=False), "here") == 32768


def test_other_architectures_are_refused(make_model: Any) -> None:
    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9))
    with pytest.raises(CheckpointError, match="here: model type 'gpt2' has no GGUF export; give one of llama, mistral"):
        architecture_of(gpt2, "here")
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
    with pytest.raises(CheckpointError, match="rope_type 'yarn'"):
        architecture_of(make_model("qwen3", rope_parameters=rope), "here")
    with pytest.raises(CheckpointError, match="not gelu"):
        architecture_of(make_model("llama", hidden_act="gelu"), "here")
    biased = make_model("qwen3", attention_bias=True)
    with pytest.raises(CheckpointError, match="qwen3 architecture has no .*bias"):
        architecture_of(biased, "here").tensor_name("model.layers.0.self_attn.o_proj.bias", "here")
