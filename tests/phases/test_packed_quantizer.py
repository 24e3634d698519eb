"""Packed models in transformers: bit for bit the ternary checkpoint, in any architecture, and for evaluation only."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.checkpoint import Checkpoint, load_model
from phases.errors import CheckpointError, TrainingError
from phases.packed.file import load_packed, pack_checkpoint
from phases.packed.model import packed_matrices
from phases.packed.modules import PackedEmbedding, PackedHead, PackedLinear, TiedHead, use_kernel

TOKENS = torch.arange(2 * 23).view(2, 23) * 7 % 257
Pack = Callable[..., tuple[Checkpoint, Checkpoint]]


@pytest.fixture(scope="module")
def pack(make_model: Any, write_ternary: Any) -> Pack:
    """A model's (ternary checkpoint, packed checkpoint)."""

    def build(
        family: str, tied: bool = True, layout: Any = "trits", group: int | None = 16, bits: Any = 8
    ) -> tuple[Checkpoint, Checkpoint]:
        model = make_model(family, tie_word_embeddings=tied)
        source = write_ternary(Quantised(model, Quantisation(group=group, embedding_bits=bits)))
        return source, pack_checkpoint(source, source.path.with_name("packed"), layout)

    return build


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_logits_equal_those_of_the_ternary_checkpoint_bit_for_bit(family: str, tied: bool, pack: Pack) -> None:
    source, packed = pack(family, tied)
    for dtype in (torch.float32, torch.bfloat16):
        model = load_packed(packed.path, dtype, "exact")
        with torch.no_grad():
            logits, expected = model(TOKENS).logits, source.model(dtype)(TOKENS).logits
        assert logits.dtype == dtype and torch.equal(logits, expected)


@pytest.fixture(scope="module")
def both(pack: Pack) -> tuple[Checkpoint, Checkpoint]:
    """A tied Llama, 8-bit embeddings: (ternary, packed)."""
    return pack("llama")


@pytest.mark.parametrize(
    ("layout", "group", "bits", "tied"),
    [("2bit", None, 4, True), ("2bit", 7, 4, False), ("trits", 128, None, True), ("trits", None, None, False)],
)
def test_every_layout_loads_exactly(layout: Any, group: Any, bits: Any, tied: bool, pack: Pack) -> None:
    source, packed = pack("qwen3", tied, layout, group, bits)
    model, plain = load_packed(packed.path, kernel="exact"), source.model()
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, plain(TOKENS).logits)
    kinds = {type(m) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    assert kinds == ({nn.Embedding, nn.Linear} if bits is None else {PackedEmbedding, TiedHead if tied else PackedHead})
    assert len(packed_matrices(model)) == 14 + (0 if bits is None else 1 if tied else 2)


def test_plain_from_pretrained_opens_it_with_the_fastest_kernel(both: tuple[Checkpoint, Checkpoint]) -> None:
    source, packed = both
    plain = AutoModelForCausalLM.from_pretrained(packed.path)
    with torch.no_grad():
        logits, expected = plain(TOKENS).logits, source.model()(TOKENS).logits
    assert not plain.training and not torch.equal(logits, expected)  # activations on 255 levels
    assert (logits - expected).norm() / expected.norm() < 0.03
    use_kernel(plain, "exact")
    with torch.no_grad():
        assert torch.equal(plain(TOKENS).logits, expected)


def test_activations_are_rounded_only_where_training_rounded_them(make_model: Any, write_ternary: Any) -> None:
    quantised = Quantised(make_model("llama"), Quantisation(group=16, activations=False))
    source = write_ternary(quantised)
    packed = pack_checkpoint(source, source.path.with_name("packed"))
    with torch.no_grad():
        logits, expected = load_packed(packed.path)(TOKENS).logits, source.model()(TOKENS).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)  # 255 levels are 3 % off


def test_generation_is_that_of_the_ternary_checkpoint(both: tuple[Checkpoint, Checkpoint]) -> None:
    source, packed = both
    how = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones_like(TOKENS)}
    ids = load_packed(packed.path, kernel="exact").generate(TOKENS, **how)
    assert torch.equal(ids, source.model().generate(TOKENS, **how)) and ids.shape[1] > 23


def test_a_loaded_model_holds_the_packed_tensors_and_nothing_else_of_that_size(
    both: tuple[Checkpoint, Checkpoint],
) -> None:
    _, packed = both
    model, stored = load_packed(packed.path, kernel="exact"), load_file(packed.path / "model.safetensors")
    assert model.state_dict().keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())
    model(TOKENS)
    held = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    extra = sum(b.nbytes for n, b in model.named_buffers() if "inv_freq" in n)
    assert sum(held.values()) == sum(t.nbytes for t in stored.values()) + extra
    assert not any(p.requires_grad for p in model.parameters())


def test_a_kernels_layout_replaces_the_packed_codes_and_gives_them_back(both: tuple[Checkpoint, Checkpoint]) -> None:
    _, packed = both
    model, stored = load_packed(packed.path, kernel="native"), load_file(packed.path / "model.safetensors")
    before = copy.deepcopy(model)
    logits = model(TOKENS).logits
    layers = [m for m in model.modules() if isinstance(m, PackedLinear)]
    assert all(m.codes.numel() == 0 and m.prepared is not None for m in layers)
    weights = {name: m.weight for name, m in packed_matrices(model).items()}
    assert all(torch.equal(m.weight, weights[name]) for name, m in packed_matrices(before).items())
    assert torch.equal(copy.deepcopy(model)(TOKENS).logits, logits)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model(TOKENS).logits, logits)


@pytest.mark.parametrize("rows", [1, 5, 64, 300])
def test_a_head_in_slices_gives_the_logits_of_the_whole(
    rows: int, both: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phases.packed.modules.SLICE_WEIGHTS", 36 * rows)
    embedding = load_packed(both[1].path).get_input_embeddings()
    x, bias = torch.randn(2, 23, 36), torch.randn(257)
    torch.testing.assert_close(embedding.linear(x, bias, "auto"), x @ embedding.weight.T + bias)


@pytest.mark.parametrize("tokens", [1, 2, 23])
def test_single_tokens_are_exact_too_where_weights_lie_alike(tokens: int, both: tuple[Checkpoint, Checkpoint]) -> None:
    aligned, model = copy.deepcopy(both[0].model()), load_packed(both[1].path, kernel="exact")
    with torch.no_grad():
        assert torch.equal(model(TOKENS[:, :tokens]).logits, aligned(TOKENS[:, :tokens]).logits)


def test_a_fresh_process_opens_it_after_one_import(both: tuple[Checkpoint, Checkpoint]) -> None:
    lines = ["import sys, phases.packed, transformers"]
    lines += ["m = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])", "print(m.model.embed_tokens)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(both[1].path)], capture_output=True, text=True, check=False
    )
    assert "PackedEmbedding" in done.stdout, done.stderr


def test_an_embedding_unpacks_the_rows_it_is_asked_for(both: tuple[Checkpoint, Checkpoint]) -> None:
    embedding = load_packed(both[1].path).get_input_embeddings()
    ids = torch.tensor([[3, 256, 3], [0, 1, 2]])
    assert torch.equal(embedding(ids), embedding.weight[ids])
    for wrong in (-1, 257):
        with pytest.raises(IndexError):
            embedding(torch.tensor([wrong]))


@pytest.mark.parametrize("how", ["load", "auto", "cast"])
def test_the_dtype_of_computation_changes_and_scales_stay_float16(
    how: str, both: tuple[Checkpoint, Checkpoint]
) -> None:
    source, packed = both
    dtype = torch.float32 if how == "auto" else torch.bfloat16
    asked = {"load": torch.bfloat16, "auto": "auto", "cast": torch.float32}[how]
    model = load_packed(packed.path, asked, "exact")
    model = model.to(torch.bfloat16) if how == "cast" else model
    scales = [m.scale for m in packed_matrices(model).values()]
    assert model.dtype == dtype and all(scale.dtype == torch.float16 for scale in scales)
    with torch.no_grad():
        plain = source.model().to(dtype) if how == "cast" else source.model(dtype)
        assert torch.equal(model(TOKENS).logits, plain(TOKENS).logits)


def test_a_device_map_is_followed(both: tuple[Checkpoint, Checkpoint]) -> None:
    model = AutoModelForCausalLM.from_pretrained(both[1].path, device_map={"": "cpu"})
    assert model(TOKENS).logits.isfinite().all()


def test_load_model_of_the_phases_opens_it(both: tuple[Checkpoint, Checkpoint]) -> None:
    assert load_model(both[1].path)(TOKENS).logits.shape == (2, 23, 257)


def test_it_cannot_be_trained_or_saved_again(both: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    model = load_packed(both[1].path)
    with pytest.raises(TrainingError, match="train the ternary checkpoint"):
        model.train()
    with pytest.raises(CheckpointError, match="copy its folder"):
        model.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists() and not model.hf_quantizer.is_trainable


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["exact", "auto"])
def test_on_a_gpu(kernel: Any, both: tuple[Checkpoint, Checkpoint]) -> None:
    model, plain = load_packed(both[1].path, kernel=kernel, device="cuda"), both[0].model().cuda()
    with torch.no_grad():
        logits, expected = model(TOKENS.cuda()).logits, plain(TOKENS.cuda()).logits
    assert torch.equal(logits, expected) if kernel == "exact" else (logits - expected).norm() < 0.03 * expected.norm()
