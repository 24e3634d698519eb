"""Building candidates from parents, the genome's rules, and the recipe's agreement with mergekit itself."""

import copy
import os

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError

from phases.errors import MergeError
from phases.evomerge.build import build_model, merge_tensors
from phases.evomerge.dare import drop
from phases.evomerge.genome import METHODS, WEIGHTED, Genome, baselines, single_parent
from phases.evomerge.parents import ParentSet, check_tokenizers
from phases.evomerge.recipe import mergekit_covers, mergekit_recipe, recipe_text
from phases.evomerge.space import Draw, families, slerp_of
from phases.evomerge.ties import ties

NAMES = ("trunk", "a", "b", "c")
quiet_mergekit = pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")


@pytest.fixture
def models(tiny_model):
    """A trunk and three models near it."""
    branches = [tiny_model]
    for seed in range(3):
        torch.manual_seed(100 + seed)
        branch = copy.deepcopy(tiny_model)
        for parameter in branch.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
        branches.append(branch)
    return branches


@pytest.fixture
def parents(models):
    return ParentSet(models, NAMES)


def genomes(seed=0, rescale="density"):
    """One random genome a method."""
    rng = np.random.default_rng(seed)
    space = families(METHODS, 3, 3, rescale, seed, 1)
    return {method: family.sample(method, rng) for family in space for method in family.methods}


def test_each_single_parent_is_that_parent_bit_for_bit(models, parents):
    for i, model in enumerate(models):
        built = dict(build_model(single_parent(i, 3), parents).named_parameters())
        assert all(torch.equal(built[name], p) for name, p in model.named_parameters())


def test_flat_rows_equal_the_method_tensor_by_tensor(parents):
    genome = genomes()["ties"]
    merged = merge_tensors(genome, parents)
    trunk, *others = parents.by_name
    for name, tensor in merged.items():
        deltas = [other[name] - trunk[name] for other in others]
        expected = ties(trunk[name], deltas, genome.weights, genome.densities, genome.scale)
        torch.testing.assert_close(tensor, expected)


def test_building_twice_is_bit_identical_and_moves_no_random_state(models):
    for genome in genomes().values():
        state = torch.random.get_rng_state()
        first, second = (
            [p.clone() for p in build_model(genome, ParentSet(models, NAMES)).parameters()] for _ in range(2)
        )
        assert all(map(torch.equal, first, second))
        assert torch.equal(state, torch.random.get_rng_state())


def test_every_merge_is_causal(parents):
    tokens = torch.randint(0, 257, (1, 8))
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % 257
    for genome in genomes().values():
        model = build_model(genome, parents)
        with torch.no_grad():
            assert torch.equal(model(tokens).logits[:, :4], model(changed).logits[:, :4])


def test_nan_is_refused_in_parents_and_in_merges(models):
    models[1].model.norm.weight.data[:] = 3e38
    overflow = Genome(method="linear", weights=(1.5, 0.0, 0.0))
    with pytest.raises(MergeError, match="NaN or infinite numbers in model.norm.weight"):
        build_model(overflow, ParentSet(models, NAMES))
    models[2].model.norm.weight.data[0] = float("nan")
    with pytest.raises(MergeError, match="^b: has NaN"):
        ParentSet(models, NAMES)


def test_other_shapes_are_refused_by_name(models):
    models[3].model.norm.weight = torch.nn.Parameter(torch.ones(16))
    with pytest.raises(MergeError, match=r"trunk and c differ: model.norm.weight is \(32,\) and \(16,\)"):
        ParentSet(models, NAMES)
    models[1].model.layers = models[1].model.layers[:2]
    with pytest.raises(MergeError, match="trunk and a differ: a has no model.layers.2"):
        ParentSet(models, NAMES)
    with pytest.raises(MergeError, match="at least two models"):
        ParentSet(models[:2], NAMES[:2])


def test_other_tokenizers_are_refused_by_token(tiny_data):
    one, two = tiny_data.tokenizer, copy.deepcopy(tiny_data.tokenizer)
    check_tokenizers(one, two, ("x", "y"))
    two.add_tokens(["<new>"])
    with pytest.raises(MergeError, match="x and y have different tokenizers: '<new>' is None in one and 257"):
        check_tokenizers(one, two, ("x", "y"))


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "ties", "weights": (1.0,)},
        {"method": "ties", "weights": (-1.0,), "densities": (1.0,)},
        {"method": "linear"},
        {"method": "slerp"},
        {"method": "frankenmerge"},
        {"method": "dfs", "slices": ((1, 0, 2),), "scales": (1.0,)},
    ],
)
def test_an_incomplete_genome_is_refused(fields):
    with pytest.raises(ValidationError):
        Genome(**fields)


def test_genomes_survive_json_and_describe_themselves():
    for method, genome in genomes().items():
        assert Genome.model_validate_json(genome.key) == genome
        assert genome.describe(NAMES).startswith(method)
    assert list(baselines(NAMES)) == [*NAMES, "uniform soup"]


def test_the_search_starts_at_the_soup_and_slerp_takes_the_heaviest_pair():
    family = families(WEIGHTED, 3, 3, "density", 0, 1)[0]
    assert family.decode(Draw(family.start(), (0,))).weights == pytest.approx((1 / 3,) * 3, abs=1e-6)
    genome = slerp_of((0.2, 1.0, 0.6))
    assert (genome.pair, genome.t) == ((2, 3), 0.375)


def merged_by_mergekit(genome, models, folder, monkeypatch):
    """Tensors that mergekit writes for the genome's recipe."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(folder)
    for name, model in zip(NAMES, models, strict=True):
        model.save_pretrained(folder / name)
    text = recipe_text(genome, NAMES, ["0"] * 4)
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    run_merge(config, "out", MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False))
    assert os.path.exists("out/config.json")
    return dict(AutoModelForCausalLM.from_pretrained("out").named_parameters())


def assert_equal_to_mergekit(genome, models, folder, monkeypatch):
    theirs = merged_by_mergekit(genome, models, folder, monkeypatch)
    ours = merge_tensors(genome, ParentSet(models, NAMES))
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        assert (tensor - theirs[name]).abs().max() <= 1e-6 * tensor.abs().max(), name


@quiet_mergekit
@pytest.mark.parametrize("method", ["linear", "slerp", "ties", "frankenmerge"])
def test_mergekit_reruns_the_recipe(method, models, tmp_path, monkeypatch):
    assert_equal_to_mergekit(genomes(1)[method], models, tmp_path, monkeypatch)


@quiet_mergekit
@pytest.mark.parametrize("rescale", ["density", "l1"])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_mergekit_reruns_dare_given_our_masks(method, rescale, models, tmp_path, monkeypatch):
    """mergekit draws masks from the global generator; handed ours, the rest of its arithmetic must agree."""
    from mergekit.merge_methods import generalized_task_arithmetic as theirs
    from mergekit.sparsify import rescaled_masked_tensor

    genome, parents = genomes(2, rescale)[method], ParentSet(models, NAMES)
    chances = [parents.tensors(row) for row in parents.uniforms_NP(genome.mask_seed)]
    deltas = [parents.tensors(row) for row in parents.deltas_NP]

    def sparsify(delta, density, method, rescale_norm):
        i, name = next(
            (i, name)
            for i, d in enumerate(deltas)
            for name in d
            if d[name].shape == delta.shape and torch.equal(d[name], delta)
        )
        return rescaled_masked_tensor(delta, (chances[i][name] < density).float(), rescale_norm)

    monkeypatch.setattr(theirs, "sparsify", sparsify)
    assert_equal_to_mergekit(genome, models, tmp_path, monkeypatch)


def test_what_mergekit_lacks_has_no_recipe(tiny_model):
    assert mergekit_recipe(genomes()["dfs"], NAMES) is None
    assert mergekit_covers(tiny_model.config, ["model.norm.weight"])
    assert not mergekit_covers(tiny_model.config, ["model.layers.0.self_attn.q_proj.bias"])


def test_drop_in_the_build_is_per_tensor_for_l1(parents):
    genome = genomes(rescale="l1")["dare_linear"].model_copy(update={"weights": (1.0, 0.0, 0.0)})
    merged = merge_tensors(genome, parents)
    chances = parents.tensors(parents.uniforms_NP(genome.mask_seed)[0])
    for name, tensor in merged.items():
        delta = parents.by_name[1][name] - parents.by_name[0][name]
        expected = parents.by_name[0][name] + drop(delta, chances[name], genome.densities[0], "l1")
        torch.testing.assert_close(tensor, expected)
