"""The export read back with gguf's reader: weights, row order, metadata, and every refusal."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from phases.bitnet.config import Quantisation
from phases.bitnet.lattice import absmax, ternary
from phases.bitnet.storage import SETTINGS, TernaryFile
from phases.bitnet.tensors import embedding_names, ternary_names
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.data.tokenizer import CHAT_TEMPLATE, train_tokenizer
from phases.errors import CheckpointError, InputError, StorageError
from phases.packed.gguf_architecture import architecture_of, context_tokens, rotary_factors
from phases.packed.gguf_export import GgufReport, export_gguf
from phases.packed.gguf_tokenizer import pre_tokenizer

VOCABULARY = 300
ARCHITECTURES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


def make_model(kind: str, hidden: int = 64, **options: Any) -> Any:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden // 4,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[kind](**{**sizes, **options}))
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "norm.weight")):
            parameter.data.normal_(1, 0.3)
    return model.eval()


def make_tokenizer() -> Any:
    return train_tokenizer(["the cat sat on the mat, and then the other cat sat there too. " * 3], 270)


def make_checkpoint(
    path: Path, model: Any, tokenizer: Any = None, group: int | None = 32, bits: Any = 8
) -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    """The model rounded to its lattice, as the bitnet phase writes it, and its weights."""
    matrices, embeddings = ternary_names(model), embedding_names(model) if bits else ()
    weights = {name: p.data for name, p in model.named_parameters()}
    for name in matrices:
        weights[name].copy_(ternary(weights[name], group).dequantise())
    for name in embeddings:
        weights[name].copy_(absmax(weights[name], bits, group).dequantise())
    quantisation = Quantisation(group=group, embedding_bits=bits)
    settings = TernaryFile(quantisation=quantisation, ternary=matrices, embeddings=embeddings).model_dump_json()
    checkpoint = save_checkpoint(
        path, model, tokenizer or make_tokenizer(), Manifest("bitnet"), texts={SETTINGS: settings}
    )
    return checkpoint, weights


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and dequantised tensors, by gguf's own code."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    return {name: field.contents() for name, field in reader.fields.items()}, tensors


def exported(tmp_path: Path, model: Any, ternary_type: Any = "auto", **options: Any) -> GgufReport:
    checkpoint, _ = make_checkpoint(tmp_path / "model", model, **options)
    return export_gguf(checkpoint, tmp_path / "model.gguf", ternary_type)


@pytest.mark.parametrize(
    ("hidden", "group", "bits", "wanted", "expected"),
    [
        (64, 32, 8, "auto", {"Q4_0", "Q8_0", "F32"}),
        (64, 64, 4, "auto", {"Q4_0", "F32"}),
        (64, None, 8, "q4_0", {"Q4_0", "Q8_0", "F32"}),
        (64, 32, None, "f16", {"F16", "F32"}),
        (64, 48, 8, "auto", {"F16", "F32"}),
        (256, 256, 8, "auto", {"TQ2_0", "Q8_0", "F32"}),
        (256, None, 4, "tq1_0", {"TQ1_0", "Q4_0", "F32"}),
        (256, 256, 8, "f16", {"F16", "Q8_0", "F32"}),
    ],
)
def test_every_weight_comes_back_exactly(
    tmp_path: Path, hidden: int, group: int | None, bits: Any, wanted: Any, expected: set[str]
) -> None:
    """Qwen3 keeps its row order: every tensor of the file is the checkpoint's."""
    model = make_model("qwen3", hidden)
    checkpoint, weights = make_checkpoint(tmp_path / "model", model, group=group, bits=bits)
    report = export_gguf(checkpoint, tmp_path / "model.gguf", wanted)
    _, tensors = read(report.path)
    architecture = architecture_of(model, "here")
    assert len(tensors) == len(weights)
    for name, weight in weights.items():
        assert np.array_equal(tensors[architecture.tensor_name(name, "here")], weight.numpy()), name
    assert set(report.types.values()) == set(report.tensor_bytes) == expected
    assert report.types["token_embd.weight"] == {8: "Q8_0", 4: "Q4_0", None: "F32"}[bits] or group == 48
    assert report.file_bytes == report.path.stat().st_size and 0 < report.metadata_bytes < 40_000


def test_auto_chooses_for_each_tensor(tmp_path: Path) -> None:
    report = exported(tmp_path, make_model("qwen3", 256, intermediate_size=352), group=None)
    assert report.types["blk.0.ffn_up.weight"] == "TQ2_0"
    assert report.types["blk.0.ffn_down.weight"] == "Q4_0"


def test_rows_turn_neighbours_as_llama_cpp_does() -> None:
    """Rotating halves (transformers) and rotating neighbours (llama.cpp) give the same scores after the reordering."""
    model = make_model("llama")
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
def test_only_llama_rows_are_reordered(tmp_path: Path, kind: str, permuted: bool) -> None:
    model = make_model(kind, attention_bias=True) if kind == "llama" else make_model(kind)
    checkpoint, weights = make_checkpoint(tmp_path / "model", model)
    fields, tensors = read(export_gguf(checkpoint, tmp_path / "model.gguf").path)
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


def test_an_untied_head_is_written_and_a_tied_one_is_not(tmp_path: Path) -> None:
    assert "output.weight" not in exported(tmp_path / "a", make_model("llama")).types
    report = exported(tmp_path / "b", make_model("llama", tie_word_embeddings=False))
    assert report.types["output.weight"] == "Q8_0"


def test_metadata(tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}
    model = make_model("qwen3", rms_norm_eps=1e-5, rope_parameters=rope)
    checkpoint, _ = make_checkpoint(tmp_path / "tiny", model)
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
        "qwen3.vocab_size": VOCABULARY,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
    assert {key: fields[key] for key in expected} == expected
    assert fields["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)


def test_tokens_and_their_types(tmp_path: Path) -> None:
    checkpoint, _ = make_checkpoint(tmp_path / "model", make_model("llama"))
    fields, _ = read(export_gguf(checkpoint, tmp_path / "model.gguf").path)
    tokens, types, known = (
        fields["tokenizer.ggml.tokens"],
        fields["tokenizer.ggml.token_type"],
        make_tokenizer().get_vocab(),
    )
    assert len(tokens) == len(types) == VOCABULARY
    assert all(tokens[i] == text for text, i in known.items())
    assert types[:4] == [gguf.TokenType.CONTROL] * 4
    assert set(types[4 : len(known)]) == {gguf.TokenType.NORMAL}
    assert set(types[len(known) :]) == {gguf.TokenType.UNUSED}


def test_llama_3_scaling_becomes_factors_of_the_frequencies() -> None:
    """arXiv 2407.21783: high frequencies stay, low ones are divided by the factor."""
    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    factors = rotary_factors(make_model("llama", rope_parameters=rope))
    assert factors is not None and factors[0] == 1 and factors[-1] == pytest.approx(8, rel=1e-6)
    assert np.all(np.diff(factors) > -1e-6)
    assert rotary_factors(make_model("llama")) is None


def test_the_context_ends_with_a_sliding_window(caplog: pytest.LogCaptureFixture) -> None:
    assert context_tokens(make_model("mistral", sliding_window=48).config, "here") == 48
    assert "no sliding window" in caplog.text
    assert context_tokens(make_model("mistral", sliding_window=None).config, "here") == 128
    assert context_tokens(make_model("llama").config, "here") == 128
    assert context_tokens(Qwen2Config(sliding_window=48, use_sliding_window=False), "here") == 32768


def test_a_type_that_does_not_fit_names_tensor_and_group(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"layers.0.*_proj.weight: rows of 64 .* groups of 32 .* TQ2_0's blocks of 256"
    ):
        exported(tmp_path, make_model("llama"), "tq2_0")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("mine")
    with pytest.raises(StorageError, match="exists already") as error:
        exported(tmp_path, make_model("llama"))
    assert error.value.exit_code == 2
    assert (tmp_path / "model.gguf").read_text() == "mine"


def test_weights_off_the_lattice_are_refused(tmp_path: Path) -> None:
    checkpoint, _ = make_checkpoint(tmp_path / "model", make_model("llama"))
    model = checkpoint.model()
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] += 0.01
    texts = {SETTINGS: (checkpoint.path / SETTINGS).read_text()}
    other = save_checkpoint(tmp_path / "other", model, make_tokenizer(), Manifest("bitnet"), texts=texts)
    with pytest.raises(CheckpointError, match="up_proj.weight: .* not on the ternary lattice"):
        export_gguf(other, tmp_path / "model.gguf")
    plain = save_checkpoint(tmp_path / "plain", model, make_tokenizer(), Manifest("cognate"))
    with pytest.raises(CheckpointError, match="plain: not ternary"):
        export_gguf(plain, tmp_path / "model.gguf")
    renamed = {SETTINGS: texts[SETTINGS].replace("layers.1.mlp.up_proj", "layers.9.mlp.up_proj")}
    odd = save_checkpoint(tmp_path / "odd", model, make_tokenizer(), Manifest("bitnet"), texts=renamed)
    with pytest.raises(CheckpointError, match="layers.9.mlp.up_proj.weight, which is not in the model"):
        export_gguf(odd, tmp_path / "model.gguf")


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, _ = make_checkpoint(tmp_path / "model", make_model("llama"))

    def full(self: Any, **_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(StorageError, match="disk is full"):
        export_gguf(checkpoint, tmp_path / "out.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_other_architectures_are_refused() -> None:
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


def byte_level(rules: Any, **options: Any) -> dict[str, Any]:
    """`tokenizer.json` of a byte-level BPE with these splitting rules."""
    core = Tokenizer(models.BPE(vocab={"a": 0}, merges=[], **options))
    core.pre_tokenizer, core.decoder = rules, decoders.ByteLevel()
    content: dict[str, Any] = json.loads(core.to_str())
    return content


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


def split(pattern: str) -> Any:
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), whole])


def test_splitting_rules_have_llama_cpp_s_names() -> None:
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    assert pre_tokenizer(byte_level(words), "here") == "gpt-2"
    assert pre_tokenizer(byte_level(pre_tokenizers.Sequence([digits, words])), "here") == "smollm"
    assert pre_tokenizer(byte_level(split(LLAMA_3), ignore_merges=True), "here") == "llama-bpe"
    assert pre_tokenizer(byte_level(split(LLAMA_3.replace("{1,3}", ""))), "here") == "qwen2"


@pytest.mark.parametrize(
    ("rules", "options", "message"),
    [
        (pre_tokenizers.Whitespace(), {}, "pre-tokenizer that llama.cpp has no name for"),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), {}, "has no name for"),
        (split(r"\w+"), {}, "has no name for"),
        (split(LLAMA_3), {}, "ignore_merges=False with the splitting rules of llama-bpe"),
        (pre_tokenizers.ByteLevel(add_prefix_space=False), {"dropout": 0.1}, "BPE with dropout"),
    ],
)
def test_tokenizers_that_llama_cpp_would_split_otherwise_are_refused(
    rules: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        pre_tokenizer(byte_level(rules, **options), "here")


def test_normalisation(caplog: pytest.LogCaptureFixture) -> None:
    core = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    assert pre_tokenizer(core | {"normalizer": {"type": "NFC"}}, "here") == "gpt-2"
    assert "decomposed accents" in caplog.text
    with pytest.raises(CheckpointError, match="normalizer of type Lowercase"):
        pre_tokenizer(core | {"normalizer": {"type": "Lowercase"}}, "here")


def test_a_tokenizer_that_is_not_bpe_or_not_the_model_s_is_refused(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    other = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="a")
    with pytest.raises(CheckpointError, match=r"\(model WordLevel\), which is not byte-level BPE"):
        exported(tmp_path, make_model("llama"), tokenizer=other)
    with pytest.raises(CheckpointError, match="the tokenizer has token 269 and the model only 200 rows"):
        exported(tmp_path, make_model("llama", vocab_size=200))
    assert not (tmp_path / "model.gguf").exists()
