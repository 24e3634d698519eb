"""The artefact's folder: its bytes, what rides along, what it is made into, and what is not written at all."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.compression.artefact import gguf_parts, read_stored, write_artefact
from phases.compression.sizes import sizes
from phases.compression.stored import Coding, Stored, squeezed
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.errors import CheckpointError
from phases.packed.gguf_tensors import check_exact, encode

VECTORS = VPTQ(vector=4, codebook_size=8, outliers=0.1, iterations=3)
QUERY, KEY, UP = (f"model.layers.0.{name}_proj.weight" for name in ("self_attn.q", "self_attn.k", "mlp.up"))
CODECS: dict[str, Coding] = {
    "model.embed_tokens.weight": VECTORS,
    QUERY: Ternary(group=16),
    KEY: Ternary(threshold=0.9, group=16),
    UP: VECTORS,
}


@pytest.fixture(scope="module")
def stored(make_model: Any) -> Stored:
    """A tied Llama of one layer, most of which has no codec."""
    weights = {name: p.detach() for name, p in make_model("llama", num_hidden_layers=1).named_parameters()}
    shared = VECTORS.encode_together({name: weights[name] for name in CODECS if CODECS[name] == VECTORS})
    encoded = {name: squeezed(matrix, VECTORS, 8) for name, matrix in shared.matrices.items()}
    encoded |= {name: codec.encode(weights[name]) for name, codec in CODECS.items() if isinstance(codec, Ternary)}
    plain = {name: weight.half() for name, weight in weights.items() if name not in CODECS}
    return Stored(CODECS, encoded, {VECTORS: shared.codebook_RKV}, plain)


@pytest.fixture(scope="module")
def source(make_model: Any, tiny_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """What was compressed: an agent with much beside its weights."""
    path, model = tmp_path_factory.mktemp("source") / "source", make_model("llama", num_hidden_layers=1)
    tensors = {name: {"a": torch.ones(3)} for name in ("latent.safetensors", "experts.safetensors")}
    texts = dict.fromkeys(("agent.json", "adas.json", "archive.jsonl", "ternary.json"), "{}\n")
    return save_checkpoint(path, model, tiny_data.tokenizer, Manifest("adas"), tensors, texts)


@pytest.fixture(scope="module")
def made(source: Checkpoint, stored: Stored, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    out, details = tmp_path_factory.mktemp("made") / "made", {"config": {"budget": 9}, "metrics": {"loss": 2.0}}
    return write_artefact(source, stored, out, activations=True, texts={"library.json": "[]\n"}, seed=4, **details)


def test_the_file_holds_what_is_stored_and_a_header_and_nothing_else(stored: Stored, made: Checkpoint) -> None:
    found, file = sizes(made.path), made.path / "model.safetensors"
    assert found.total == file.stat().st_size == stored.bytes + found.header
    assert found.codebooks == stored.codebooks[VECTORS].nbytes
    assert found.other_weights == sum(t.nbytes for t in stored.plain.values())
    assert min(asdict(found).values()) > 0
    assert made.manifest["metrics"] == {"loss": 2.0, **{f"{k}_bytes": v for k, v in asdict(found).items()}}
    assert (made.manifest["phase"], made.manifest["seed"], made.manifest["config"]) == ("compression", 4, {"budget": 9})


def test_what_is_read_back_is_what_was_stored(stored: Stored, made: Checkpoint) -> None:
    read, contents = read_stored(made.path)
    assert read.codecs == stored.codecs and contents.activations
    assert read.bytes == stored.bytes and read.plain.keys() == stored.plain.keys()
    for name, encoded in stored.encoded.items():
        found = read.encoded[name]
        assert (found.codec, found.shape) == (encoded.codec, encoded.shape)
        assert found.tensors.keys() == encoded.tensors.keys()
        assert all(torch.equal(found.tensors[part], tensor) for part, tensor in encoded.tensors.items())


def test_an_artefact_has_what_its_source_has_besides_weights(made: Checkpoint, source: Checkpoint) -> None:
    names = {path.name for path in made.path.iterdir()}
    assert {"agent.json", "library.json", "tokenizer.json", "generation_config.json", "forge.json"} < names
    assert not names & {"latent.safetensors", "experts.safetensors", "adas.json", "archive.jsonl", "ternary.json"}
    assert made.tokenizer()("ab").input_ids == source.tokenizer()("ab").input_ids
    assert made.manifest["parents"] == [source.digest] and (made.path / "library.json").read_text() == "[]\n"


def test_equal_models_give_equal_bytes(stored: Stored, made: Checkpoint, tmp_path: Path) -> None:
    one, other = (write_artefact(made, stored, tmp_path / name) for name in ("one", "other"))
    assert one.digest == other.digest and not read_stored(one.path)[1].activations  # as nothing says that it was


def test_kernels_may_round_activations_where_the_source_was_trained_so(
    stored: Stored, make_model: Any, write_ternary: Any, tmp_path: Path
) -> None:
    trained = write_ternary(Quantised(make_model("llama", num_hidden_layers=1), Quantisation(group=16)))
    again = write_artefact(trained, stored, tmp_path / "made")
    assert read_stored(again.path)[1].activations and not (again.path / "ternary.json").exists()


def test_gguf_gets_the_lattices_of_ternary_layers(stored: Stored, made: Checkpoint, tmp_path: Path) -> None:
    file, model = gguf_parts(made.path)
    assert set(file.ternary) == {QUERY, KEY} and not file.embeddings
    assert file.quantisation.group == 16 and file.quantisation.activations
    for name in file.ternary:
        tensor = encode(name, name, model.get_parameter(name).detach(), file, "auto")
        check_exact(name, tensor.data, tensor.kind, stored.weight(name))
    codecs = {**stored.codecs, KEY: Ternary(group=8)}
    encoded = {**stored.encoded, KEY: Ternary(group=8).encode(stored.weight(KEY))}
    mixed = write_artefact(made, replace(stored, codecs=codecs, encoded=encoded), tmp_path / "mixed")
    with pytest.raises(CheckpointError, match="2 sizes of groups"):
        gguf_parts(mixed.path)


Spoil = Callable[[dict[str, Any], dict[str, Any], dict[Any, Any]], object]
"""Changes the tensors without a codec, those with, and the codebooks."""
SPOILT: dict[str, tuple[str, Spoil]] = {
    "a tensor less": ("model.norm.weight is not stored", lambda plain, _, books: plain.pop("model.norm.weight")),
    "a tensor more": ("lm_head.weight is stored", lambda plain, _, books: plain.update({"lm_head.weight": HALF})),
    "float32": ("the rest in float16", lambda plain, _, books: plain.update({"model.norm.weight": torch.ones(36)})),
    "another shape": (f"{QUERY} is stored as", lambda _, coded, books: coded.update({QUERY: coded[KEY]})),
    "a codebook less": ("0 codebooks for 1 settings", lambda plain, _, books: books.clear()),
}
HALF = torch.zeros(257, 36).half()


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_not_the_sources_model_is_not_written(
    what: str, stored: Stored, made: Checkpoint, tmp_path: Path
) -> None:
    (reason, spoil), parts = SPOILT[what], (dict(stored.plain), dict(stored.encoded), dict(stored.codebooks))
    spoil(*parts)
    with pytest.raises(CheckpointError, match=reason):
        write_artefact(made, Stored(stored.codecs, parts[1], parts[2], parts[0]), tmp_path / "made")
    assert not list(tmp_path.iterdir())
