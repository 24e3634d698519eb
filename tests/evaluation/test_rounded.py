"""Rounding without training, against loops in numpy: the ternary lattice, NF4's published levels, int8, and bytes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from evaluation.rounded import round_by_bitsandbytes, round_to_ternary
from phases.bitnet.config import Quantisation

Floats = npt.NDArray[np.float32]
NF4 = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    dtype=np.float32,
)
"""NormalFloat, QLoRA (arXiv 2305.14314), appendix E."""


def model_of(tied: bool = True) -> Any:
    """Odd shapes: of 67 rows of 36 no number of whole blocks remains."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 51, "hidden_size": 36, "intermediate_size": 67, "num_hidden_layers": 2, "head_dim": 18}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": tied}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, attention_bias=True)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "bias")):
            nn.init.normal_(parameter)
    return model


def weights(model: Any) -> dict[str, Floats]:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def is_linear(name: str) -> bool:
    return "proj.weight" in name


def nf4(weight: Floats) -> Floats:
    """Blocks of 64 in the order of memory, each by its largest magnitude, to the nearest level."""
    flat, out = weight.reshape(-1), np.empty(weight.size, dtype=np.float32)
    for start in range(0, len(flat), 64):
        block = flat[start : start + 64]
        largest = np.abs(block).max()
        level = np.abs(block[:, None] / (largest or 1) - NF4).argmin(1)
        out[start : start + 64] = NF4[level] * largest
    return out.reshape(weight.shape)


def int8(weight: Floats) -> Floats:
    """Row by row, from float16, to 255 levels between ± the largest magnitude."""
    out = np.empty_like(weight)
    for row, source in enumerate(weight.astype(np.float16).astype(np.float64)):
        step = np.abs(source).max() / 127
        out[row] = np.rint(source / (step or 1)) * step
    return out


def ternary(weight: Floats, group: int) -> Floats:
    """absmean of each group of a row (arXiv 2402.17764), the scale in float16."""
    out = np.empty_like(weight)
    for row, source in enumerate(weight):
        for start in range(0, len(source), group):
            part = source[start : start + group]
            scale = np.float32(np.float16(np.abs(part).mean()))
            out[row, start : start + group] = np.clip(np.rint(part / scale), -1, 1) * scale
    return out


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "reference"), [("nf4", nf4), ("int8", int8)])
def test_layers_are_rounded_as_published_and_the_rest_is_in_float16(kind: Any, reference: Any, tied: bool) -> None:
    model = model_of(tied)
    before = weights(model)
    after = weights(round_by_bitsandbytes(model, kind)[0])
    assert after.keys() == before.keys() and sum(map(is_linear, after)) == 14
    for name, found in after.items():
        if is_linear(name):
            np.testing.assert_allclose(found, reference(before[name]), rtol=2e-6, atol=1e-9, err_msg=name)
        else:
            assert np.array_equal(found, before[name].astype(np.float16).astype(np.float32)), name
            assert not np.array_equal(found, before[name]), f"{name} shows nothing: float16 holds it"
    assert ("lm_head.weight" in after) != tied
    assert len(np.unique(after["model.embed_tokens.weight"])) > 1000


@pytest.mark.parametrize("tied", [True, False])
def test_bytes_are_codes_scales_and_the_rest_in_float16(tied: bool) -> None:
    shapes = {name: p.shape for name, p in model_of(tied).named_parameters()}
    linear = [shape for name, shape in shapes.items() if is_linear(name)]
    rest = sum(shape.numel() for name, shape in shapes.items() if not is_linear(name))
    blocks = sum(-(-shape.numel() // 64) for shape in linear)
    assert any(shape.numel() % 64 for shape in linear)
    assert round_by_bitsandbytes(model_of(tied), "nf4")[1] == 32 * blocks + 4 * blocks + 2 * rest
    rows = sum(shape[0] for shape in linear)
    assert round_by_bitsandbytes(model_of(tied), "int8")[1] == sum(s.numel() for s in linear) + 4 * rows + 2 * rest


@pytest.mark.parametrize(("kind", "reference"), [("nf4", nf4), ("int8", int8)])
@pytest.mark.parametrize("scale", [0.0, 0.01, 100.0])
def test_zeros_and_sizes_do_not_matter(kind: Any, reference: Any, scale: float) -> None:
    model = model_of()
    layer = model.model.layers[1].mlp.down_proj
    with torch.no_grad():
        layer.weight[:20] *= scale
    expected = reference(layer.weight.detach().numpy())
    found = round_by_bitsandbytes(model, kind)[0].model.layers[1].mlp.down_proj.weight.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-9)
    assert bool(found[:20].any()) == bool(scale) and found[20:].any()


@pytest.mark.parametrize("group", [16, 7, 128])
def test_ternary_is_the_lattice_of_training_and_a_plain_model(group: int) -> None:
    model = model_of()
    before, tokens = weights(model), torch.arange(10)[None]
    rounded = round_to_ternary(model, Quantisation(group=group))
    after = weights(rounded)
    assert after.keys() == before.keys() and not any(hasattr(m, "parametrizations") for m in rounded.modules())
    for name, found in after.items():
        if is_linear(name):
            np.testing.assert_allclose(found, ternary(before[name], group), rtol=1e-6, err_msg=name)
        elif "embed" not in name:
            assert np.array_equal(found, before[name]), name
    embedding = (before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert 0 < np.abs(embedding[0] - embedding[1]).max() < np.abs(embedding[0]).max() / 127
    plain = model_of()
    plain.load_state_dict(rounded.state_dict())
    with torch.no_grad():
        assert torch.equal(rounded(tokens).logits, plain(tokens).logits), "inputs are still rounded"


def test_embeddings_that_are_not_quantised_stay_as_they_are() -> None:
    model = model_of(tied=False)
    before = weights(model)
    after = weights(round_to_ternary(model, Quantisation(group=16, embedding_bits=None)))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert np.array_equal(after[name], before[name])
