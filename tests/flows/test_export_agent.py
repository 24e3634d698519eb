"""`forge export` of a compressed agent: plain weights, GGUF, and what is refused."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flows.cli import main
from flows.parameters import load_config
from phases.bitnet.tensors import ternary_names
from phases.checkpoint import Checkpoint, Manifest, load_model, open_checkpoint, save_checkpoint
from phases.compression.artefact import read_stored, write_artefact
from phases.compression.seedlm import SeedLM
from phases.compression.stored import Coding, Stored
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.data.prepare import prepare_data

BOOK = VPTQ(vector=4, codebook_size=32)
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def seeded(agent: Checkpoint) -> Checkpoint:
    """The same model, every matrix by SeedLM: nothing is ternary."""
    source = open_checkpoint(agent.path.parent / "plain")
    weights = source.tensors()
    codec = SeedLM(register=6, block=8, refined=2)
    encoded = {name: codec.encode(weight) for name, weight in weights.items() if weight.ndim == 2}
    plain = {name: weight.half() for name, weight in weights.items() if weight.ndim == 1}
    stored = Stored(dict.fromkeys(encoded, codec), encoded, {}, plain)
    return write_artefact(source, stored, agent.path.parent / "seeded")


@pytest.fixture(scope="module")
def agent(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A body of ternary layers but one, which has a codebook with the embedding."""
    folder = tmp_path_factory.mktemp("agent")
    data = prepare_data(load_config(file=tiny_file).data, None, folder / "data")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 96, "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=data.vocabulary, **shape, **ends))
    source = save_checkpoint(folder / "plain", model, data.tokenizer, Manifest("cognate"))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    names = ternary_names(model)
    codecs: dict[str, Coding] = {name: Ternary(0.5, 32, 16) for name in names[1:]}
    codecs |= {names[0]: BOOK, EMBEDDING: BOOK}
    shared = BOOK.encode_together({name: weights[name] for name in (names[0], EMBEDDING)})
    encoded = {name: codec.encode(weights[name]) for name, codec in codecs.items() if isinstance(codec, Ternary)}
    plain = {name: weight.half() for name, weight in weights.items() if name not in codecs}
    stored = Stored(codecs, encoded | dict(shared.matrices), {BOOK: shared.codebook_RKV}, plain)
    return write_artefact(source, stored, folder / "agent", activations=False)


def test_dequantised_it_is_what_the_file_stands_for(
    agent: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plain"
    assert main(["export", str(agent.path), "--dequantise", "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    weights, found = read_stored(agent.path)[0].weights(), open_checkpoint(out).tensors()
    assert weights.keys() == found.keys() and all(torch.equal(weights[name], found[name]) for name in weights)
    count = sum(weight.numel() for weight in weights.values())
    assert (said["format"], said["parameters"]) == ("plain", count) and said["bytes"] > 4 * count
    assert type(load_model(out)).__name__ == "LlamaForCausalLM"
    assert "quantization_config" not in json.loads((out / "config.json").read_text())


def test_gguf_has_the_ternary_layers_as_they_are_and_the_others_in_full(
    agent: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.gguf"
    assert main(["export", str(agent.path), "--format", "gguf", "--out", str(out)]) == 0
    assert "smaller than float32" in capsys.readouterr().out
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(out).tensors}
    weights = read_stored(agent.path)[0].weights()
    for ours, theirs in (
        (EMBEDDING, "token_embd.weight"),
        ("model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight"),
    ):
        found = tensors[theirs]
        assert np.array_equal(gguf.quants.dequantize(found.data, found.tensor_type), weights[ours].numpy())
    assert tensors["blk.1.ffn_up.weight"].tensor_type.name == "Q4_0" and tensors["token_embd.weight"].n_bytes > 0


def test_gguf_of_an_agent_without_ternary_layers_has_every_weight_in_full(
    seeded: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.gguf"
    assert main(["export", str(seeded.path), "--format", "gguf", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["by_kind"].keys() <= {"F16", "F32", "metadata"}
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(out).tensors}
    weights = read_stored(seeded.path)[0].weights()
    assert len(tensors) == len(weights)
    for ours, theirs in ((EMBEDDING, "token_embd"), ("model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up")):
        found = tensors[f"{theirs}.weight"]
        assert np.array_equal(gguf.quants.dequantize(found.data, found.tensor_type), weights[ours].numpy())
    refused = ["export", str(seeded.path), "--format", "gguf", "--type", "q4_0", "--out", str(tmp_path / "o")]
    assert main(refused) == 2 and "no layer is ternary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--format", "packed"], "smaller than packed already; choose --format gguf or --dequantise"),
        (["--dequantise", "--layout", "2bit"], "--layout belongs to --format packed"),
        (["--dequantise", "--format", "gguf"], "not allowed with argument"),
    ],
)
def test_bad_options(
    options: list[str], wanted: str, agent: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["export", str(agent.path), "--out", str(tmp_path / "out"), *options])
    except SystemExit as stopped:
        code = int(str(stopped.code))
    said = capsys.readouterr().err.splitlines()
    assert code == 2 and len(said) == 1 and wanted in said[0] and not (tmp_path / "out").exists()


def test_what_is_not_compressed_cannot_be_dequantised(
    agent: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(agent.path.parent / "plain"), "--dequantise", "--out", str(tmp_path / "o")]) == 2
    assert "not compressed; give the agent that the compression phase wrote" in capsys.readouterr().err
