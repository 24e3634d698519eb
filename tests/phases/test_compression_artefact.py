"""The compressed checkpoint: the weights that were stored, in any architecture, opened by plain `from_pretrained`."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.compression.artefact import dequantise, float_model, load_artefact, write_artefact
from phases.compression.hyper import Hyper
from phases.compression.modules import LazyEmbedding, LazyLinear, LazyMatrix
from phases.compression.rows import TernaryRows
from phases.compression.seedlm import SeedLM
from phases.compression.stored import Coding, Stored, squeezed
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.errors import CheckpointError, TrainingError
from phases.packed.modules import PackedLinear, PackedMatrix

TOKENS = torch.arange(2 * 23).view(2, 23) * 7 % 257
WIDE, NARROW = VPTQ(vector=5, codebook_size=16, iterations=3), VPTQ(vector=4, codebook_size=8, scales="matrix")
CODECS: dict[str, Coding] = {
    "embed_tokens": WIDE,
    "lm_head": Hyper(bits=4, group=12),
    "layers.0.self_attn.q_proj": Ternary(group=16),
    "layers.1.self_attn.k_proj": Ternary(threshold=0.8, group=None),
    "o_proj": SeedLM(register=6, block=8, refined=2),
    "gate_proj": WIDE,
    "up_proj": VPTQ(vector=4, codebook_size=8, residuals=1, outliers=0.1, iterations=3),
    "down_proj": NARROW,
    "layers.1.mlp.down_proj": Hyper(bits=3, dimension=2, group=None, centred=True),
}
"""Of layers whose names end so, the last that fits; `v_proj` has none. Few are ternary: their streams take time."""
Write = Callable[..., tuple[Stored, Checkpoint]]


def store(model: Any, codecs: Mapping[str, Coding]) -> Stored:
    """A model as it is stored; the second layer's VPTQ has its scales compressed too."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    chosen = {n: c for n in weights for end, c in codecs.items() if n.endswith(f"{end}.weight")}
    encoded, books = {}, {}
    for codec in set(chosen.values()):
        own = {name: weights[name] for name in chosen if chosen[name] == codec}
        if isinstance(codec, VPTQ):
            shared = codec.encode_together(own)
            books[codec] = shared.codebook_RKV
            encoded |= {n: squeezed(e, codec, 8 if "layers.1" in n else 16) for n, e in shared.matrices.items()}
        else:
            encoded |= {name: codec.encode(weight) for name, weight in own.items()}
    return Stored(chosen, encoded, books, {n: w.half() for n, w in weights.items() if n not in chosen})


@pytest.fixture(scope="module")
def write(make_model: Any, tiny_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """A model of a family as (what is stored, the artefact)."""

    def build(
        family: str, tied: bool = True, codecs: Mapping[str, Coding] = CODECS, **options: Any
    ) -> tuple[Stored, Checkpoint]:
        folder, model = tmp_path_factory.mktemp("artefact"), make_model(family, tie_word_embeddings=tied)
        stored = store(model, codecs)
        source = save_checkpoint(folder / "source", model, tiny_data.tokenizer, Manifest("adas"))
        return stored, write_artefact(source, stored, folder / "made", **{"activations": True, **options})

    return build


@pytest.fixture(scope="module")
def llama(write: Write) -> tuple[Stored, Checkpoint]:
    """A tied Llama."""
    return write("llama")


@pytest.fixture(scope="module")
def qwen2(write: Write) -> tuple[Stored, Checkpoint]:
    """Biases, and a head of its own."""
    return write("qwen2", False)


@pytest.fixture(scope="module")
def mistral(write: Write) -> tuple[Stored, Checkpoint]:
    """Tied, with a codec less."""
    return write("mistral", codecs={name: codec for name, codec in CODECS.items() if not isinstance(codec, Ternary)})


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(TOKENS).logits
    return found


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    lazy = {n: m for n, m in model.named_modules() if isinstance(m, (LazyMatrix, PackedMatrix))}
    return {**dict(model.named_parameters()), **{f"{name}.weight": m.weight for name, m in lazy.items()}}


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_weights_are_those_that_were_stored_and_logits_theirs(family: str, request: Any) -> None:
    stored, made = request.getfixturevalue(family)
    weights, model = stored.weights(), load_artefact(made.path, kernel="exact")
    read = weights_of(model)
    assert {*weights, "lm_head.weight"} == {*read, "lm_head.weight"}
    assert all(torch.equal(read[name], weight) for name, weight in weights.items())
    expected = logits_of(float_model(made.path, weights))
    torch.testing.assert_close(logits_of(model), expected, rtol=1e-5, atol=1e-5)
    ternary = [name for name, codec in stored.codecs.items() if isinstance(codec, Ternary)]
    assert len(stored.codebooks) == 3 and sum(isinstance(m, PackedLinear) for m in model.modules()) == len(ternary)


@pytest.mark.parametrize("activations", [True, False])
def test_plain_from_pretrained_rounds_activations_where_training_did(activations: bool, write: Write) -> None:
    stored, made = write("llama", codecs={"mlp.up_proj": Ternary(group=16)}, activations=activations)
    model, expected = AutoModelForCausalLM.from_pretrained(made.path), float_model(made.path, stored.weights())
    off = float((logits_of(model) - logits_of(expected)).norm() / logits_of(expected).norm())
    assert not model.training and (1e-4 < off < 0.03 if activations else off < 1e-5)


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_a_head_in_slices_gives_the_logits_of_the_whole(
    rows: int, llama: tuple[Stored, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phases.compression.modules.SLICE_WEIGHTS", 36 * rows)
    head = load_artefact(llama[1].path).get_output_embeddings()
    assert isinstance(head, LazyLinear) and head.kernel == "auto"
    x = torch.randn(2, 23, 36)
    torch.testing.assert_close(head(x), x @ head.weight.T, rtol=1e-5, atol=1e-4)


def test_a_loaded_model_holds_the_stored_bytes_and_not_the_weights(llama: tuple[Stored, Checkpoint]) -> None:
    stored, made = llama
    model = load_artefact(made.path)
    lazy = {m.matrix for m in model.modules() if isinstance(m, LazyMatrix)}
    assert model.get_input_embeddings().matrix is model.get_output_embeddings().matrix
    floats = sum(4 * encoded.shape[0] * encoded.shape[1] for encoded in stored.encoded.values())
    # A byte a code of VPTQ; 1.6 bits a ternary code; all else as in the file.
    held = sum(matrix.bytes for matrix in lazy) + sum(b.nbytes for b in model.buffers())
    assert sum(e.bytes for e in stored.encoded.values()) < held < floats / 8
    assert not model.state_dict().keys() & {"codebooks.0", "model.embed_tokens.weight"}


def test_ternary_embeddings_and_heads_stay_at_two_bits(write: Write) -> None:
    stored, made = write("llama", codecs={"embed_tokens": Ternary(group=16)})
    model = load_artefact(made.path, kernel="exact")
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    assert [type(m) for m in ends] == [LazyEmbedding, LazyLinear]
    assert all(type(m.matrix) is TernaryRows and m.matrix.codes_OB.nbytes == 257 * 9 for m in ends)
    expected = logits_of(float_model(made.path, stored.weights()))
    torch.testing.assert_close(logits_of(model), expected, rtol=1e-5, atol=1e-5)


def test_a_model_of_which_nothing_is_encoded_is_float16(write: Write) -> None:
    stored, made = write("llama", codecs={})
    model = load_artefact(made.path)
    assert (
        type(model.get_input_embeddings()) is nn.Embedding and model.lm_head.weight is model.model.embed_tokens.weight
    )
    assert torch.equal(logits_of(model), logits_of(float_model(made.path, stored.weights())))


def test_generation_is_that_of_the_plain_model(llama: tuple[Stored, Checkpoint], tmp_path: Path) -> None:
    how = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones_like(TOKENS)}
    plain = dequantise(llama[1].path, tmp_path / "plain")
    ids = load_artefact(llama[1].path, kernel="exact").generate(TOKENS, **how)
    assert torch.equal(ids, plain.model().generate(TOKENS, **how)) and ids.shape[1] > 23


def test_dequantised_it_is_a_checkpoint_like_any(qwen2: tuple[Stored, Checkpoint], tmp_path: Path) -> None:
    stored, made = qwen2
    plain, weights = dequantise(made.path, tmp_path / "plain"), stored.weights()
    read = load_file(plain.path / "model.safetensors")
    assert read.keys() == weights.keys() and all(torch.equal(read[name], weights[name]) for name in weights)
    assert "quantization_config" not in (plain.path / "config.json").read_text()
    assert plain.manifest["parents"] == [made.digest] and plain.tokenizer()("ab").input_ids
    expected = logits_of(load_artefact(made.path, kernel="exact"))
    torch.testing.assert_close(logits_of(plain.model()), expected, rtol=1e-5, atol=1e-5)


def test_a_fresh_process_opens_it_after_one_import(llama: tuple[Stored, Checkpoint]) -> None:
    lines = ["import sys, hashlib, torch, phases.compression.quantizer, transformers", "torch.set_num_threads(1)"]
    lines += ["m = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])"]
    lines += ["x = m(torch.arange(2 * 23).view(2, 23) * 7 % 257).logits.detach()"]
    lines += ["print(type(m.model.embed_tokens).__name__, hashlib.sha256(x.numpy().tobytes()).hexdigest())"]
    command = [sys.executable, "-c", "\n".join(lines), str(llama[1].path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    logits = logits_of(AutoModelForCausalLM.from_pretrained(llama[1].path))
    digest = hashlib.sha256(logits.numpy().tobytes()).hexdigest()
    assert done.stdout.strip() == f"LazyEmbedding {digest}", done.stderr


def test_other_dtypes_keep_the_stored_weights(llama: tuple[Stored, Checkpoint]) -> None:
    stored, made = llama
    model = load_artefact(made.path, torch.bfloat16, "exact")
    assert model.dtype == torch.bfloat16 and logits_of(model).dtype == torch.bfloat16
    assert torch.equal(model.get_input_embeddings().weight, stored.weight("model.embed_tokens.weight"))
    expected = logits_of(float_model(made.path, stored.weights()))
    assert (logits_of(model).float() - expected).norm() < 0.03 * expected.norm()


def test_it_cannot_be_trained_or_saved_again(llama: tuple[Stored, Checkpoint], tmp_path: Path) -> None:
    model = load_artefact(llama[1].path)
    with pytest.raises(TrainingError, match="train the checkpoint"):
        model.train()
    with pytest.raises(CheckpointError, match="copy its folder"):
        model.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists() and not model.hf_quantizer.is_trainable
