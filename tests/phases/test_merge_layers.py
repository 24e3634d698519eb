"""Frankenmerge and the data-flow space against forward passes that really walk the layers."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from phases.errors import MergeError
from phases.evomerge.build import build_model
from phases.evomerge.dfs import chosen_path, fold, layout
from phases.evomerge.frankenmerge import layer_name, layers_of, passthrough, slices_of
from phases.evomerge.genome import Genome
from phases.evomerge.parents import ParentSet

NAMES = ("trunk", "a", "b")
SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


def family(kind=LlamaForCausalLM, config=None, **options):
    """Three models of one shape with unrelated weights."""
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(kind(config or LlamaConfig(**SIZES, **options)).eval())
    return models


def walk(models, path, scales, tokens):
    """The slow reference: layer after layer, each input scaled, embedding and end from the path's own parents."""
    first, last = models[path[0][0]].model, models[path[-1][0]]
    hidden = first.embed_tokens(tokens)
    positions = torch.arange(tokens.shape[1])[None]
    rotary = first.rotary_emb(hidden, positions)
    mask = torch.full((tokens.shape[1],) * 2, float("-inf")).triu(1)[None, None]
    for (parent, layer), scale in zip(path, scales, strict=True):
        hidden = models[parent].model.layers[layer](
            hidden * scale, attention_mask=mask, position_embeddings=rotary, position_ids=positions
        )
    head = models[path[0][0]] if last.config.tie_word_embeddings else last
    return head.lm_head(last.model.norm(hidden))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_dfs_folds_into_a_plain_model(tied, bias):
    models = family(tie_word_embeddings=tied, attention_bias=bias, mlp_bias=bias)
    for parameter in (p for m in models for n, p in m.named_parameters() if n.endswith("bias")):
        parameter.normal_(0, 0.2)
    path, scales = [(1, 0), (2, 1), (0, 2), (2, 1), (1, 2)], (0.7, 1.4, 0.6, 1.0, 1.3)
    genome = Genome(method="dfs", slices=slices_of(path), scales=scales)
    tokens = torch.randint(0, 256, (2, 11))
    logits = build_model(genome, ParentSet(models, NAMES))(tokens).logits
    expected = walk(models, path, scales, tokens)
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    unscaled = walk(models, path, (1.0,) * 5, tokens)
    assert (unscaled - expected).abs().max() > 0.01 * expected.abs().max()


@torch.no_grad()
def test_frankenmerge_walks_its_slices_with_and_without_a_cache():
    models = family(tie_word_embeddings=False)
    genome = Genome(method="frankenmerge", slices=((2, 0, 2), (1, 1, 3)))
    model = build_model(genome, ParentSet(models, NAMES))
    tokens = torch.randint(1, 256, (1, 6))
    assert model.config.num_hidden_layers == 4
    expected = walk(models, layers_of(genome.slices), (1.0,) * 4, tokens)
    torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-4, atol=1e-4)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    cached, plain = (model.generate(tokens, use_cache=cache, **options) for cache in (True, False))
    assert torch.equal(cached, plain)
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2, 3]


@torch.no_grad()
def test_a_future_token_does_not_change_the_past():
    genome = Genome(method="dfs", slices=((1, 0, 3), (2, 0, 3)), scales=(1.2,) * 6)
    model = build_model(genome, ParentSet(family(), NAMES))
    tokens = torch.randint(0, 256, (1, 9))
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 256
    before, after = model(tokens).logits, model(changed).logits
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


@torch.no_grad()
def test_query_norms_and_layer_types_of_other_families_come_along():
    sizes = {**SIZES, "head_dim": 8, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    models = family(Qwen3ForCausalLM, Qwen3Config(**sizes))
    types = models[0].config.layer_types
    model = build_model(Genome(method="frankenmerge", slices=((1, 2, 3), (2, 0, 2))), ParentSet(models, NAMES))
    assert model.config.layer_types == [types[2], types[0], types[1]]
    got = model.model.layers[0].self_attn.q_norm.weight
    assert torch.equal(got, models[1].model.layers[2].self_attn.q_norm.weight)


def test_slices_and_paths_are_inverse():
    path = [(0, 0), (0, 1), (1, 2), (0, 2), (0, 2), (0, 3)]
    assert slices_of(path) == ((0, 0, 2), (1, 2, 3), (0, 2, 3), (0, 2, 4))
    assert layers_of(slices_of(path)) == path


def test_layer_names_count_up_past_nine():
    assert layer_name("model.layers.3.mlp.up_proj.weight", 11) == "model.layers.11.mlp.up_proj.weight"
    parents = [{f"model.layers.{i}.self_attn.o_proj.weight": torch.full((1,), float(i)) for i in range(12)}]
    folded = fold(passthrough(parents, [(0, i) for i in range(12)]), (1.0, 2.0, *(1.0,) * 10))
    values = [folded[f"model.layers.{i}.self_attn.o_proj.weight"].item() for i in range(12)]
    assert values == [0.0, *(i / 2 for i in range(1, 12))]


def test_the_base_parent_keeps_both_ends():
    slots = layout([(1, 0), (1, 1), (2, 0), (2, 1)], 2)
    nothing = chosen_path(slots, [-1.0] * 8, [2.0] * 8, base=2)
    assert nothing == ([(2, 0), (2, 1)], [1.0, 1.0])
    everything = chosen_path(slots, [1.0] * 8, [2.0] * 8, base=1)
    assert everything == ([*slots, (1, 1)], [*[2.0] * 8, 1.0])


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(MergeError, match="step 0"):
        fold({"model.layers.0.mlp.down_proj.weight": torch.ones(1)}, [scale])


def test_missing_layers_and_stacks_are_named():
    with pytest.raises(MergeError, match="layer 7 does not exist"):
        passthrough([{"model.layers.0.x": torch.ones(1)}], [(0, 7)])
    with pytest.raises(MergeError, match="decoder stack"):
        passthrough([{"weight": torch.ones(1)}], [(0, 0)])
