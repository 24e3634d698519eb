"""From genome to model, in memory: about 5 ms at a million parameters, against seconds through files.

One skeleton of each depth is kept and overwritten, so a built model is valid until the next call with the same
depth. The merge runs in float32 on flat rows; only what is defined per tensor (slerp's angle, trimming, the L1
rescale) goes tensor by tensor.
"""

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from phases.errors import MergeError
from phases.evomerge.dare import dare_linear, dare_ties, drop
from phases.evomerge.dfs import dfs
from phases.evomerge.frankenmerge import layers_of, passthrough
from phases.evomerge.genome import Genome
from phases.evomerge.linear import linear, trunk_weights
from phases.evomerge.parents import ParentSet
from phases.evomerge.slerp import slerp
from phases.evomerge.ties import ties


@torch.no_grad()
def build_model(genome: Genome, parents: ParentSet) -> Any:
    """The merged model in evaluation mode; it is overwritten by the next call.

    Raises `MergeError` when the merge has NaN or infinite weights.
    """
    tensors = merge_tensors(genome, parents)
    model = _skeleton(genome, parents)
    for name, parameter in model.named_parameters():
        if not torch.isfinite(tensors[name].sum()):  # a sum is one pass without a mask; NaN and inf survive it
            raise MergeError(f"{genome.describe(parents.names)}: NaN or infinite numbers in {name}")
        parameter.copy_(tensors[name])
    return model


def merge_tensors(genome: Genome, parents: ParentSet) -> dict[str, torch.Tensor]:
    """The merged model's tensors by name (float32; may be views of the parents)."""
    if genome.slices:
        path = layers_of(genome.slices)
        if genome.method == "dfs":
            return dfs(parents.by_name, path, genome.scales)
        return passthrough(parents.by_name, path)
    if genome.method == "slerp" and genome.pair:
        a, b = (parents.by_name[i] for i in genome.pair)
        return {name: slerp(a[name], b[name], genome.t) for name in a}
    if len(genome.weights) != parents.count:
        raise MergeError(f"the genome has {len(genome.weights)} weights for {parents.count} parents; give one each")
    if genome.method == "linear":
        return parents.tensors(linear(parents.thetas_NP, trunk_weights(genome.weights)))
    return parents.tensors(_sparse(genome, parents))


def _sparse(genome: Genome, parents: ParentSet) -> torch.Tensor:
    """(P,) ties and dare, a tensor at a time: its N rows fit the cache, which is worth a factor of four."""
    merged_P = torch.empty_like(parents.thetas_NP[0])
    ranks_NP = parents.ranks_NP if genome.method == "ties" else None
    uniforms_NP = None if genome.method == "ties" else parents.uniforms_NP(genome.mask_seed)
    combine = dare_linear if genome.method == "dare_linear" else dare_ties
    for _, a, b in parents.spans():
        trunk, deltas = parents.thetas_NP[0, a:b], list(parents.deltas_NP[:, a:b])
        if ranks_NP is not None:
            ranks = list(ranks_NP[:, a:b])
            merged_P[a:b] = ties(trunk, deltas, genome.weights, genome.densities, genome.scale, ranks)
        elif uniforms_NP is not None:
            chances = uniforms_NP[:, a:b]
            kept = [drop(*each, genome.rescale) for each in zip(deltas, chances, genome.densities, strict=True)]
            merged_P[a:b] = combine(trunk, kept, genome.weights)
    return merged_P


def _skeleton(genome: Genome, parents: ParentSet) -> Any:
    """A model of the genome's depth whose numbers do not matter yet."""
    config = merged_config(parents.config, genome)
    key = (config.num_hidden_layers, tuple(getattr(config, "layer_types", None) or ()))
    if key not in parents.skeletons:
        with torch.random.fork_rng(devices=[]):  # the initialisation must not move the caller's random state
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        parents.skeletons[key] = model.requires_grad_(False)
    return parents.skeletons[key]


def merged_config(config: Any, genome: Genome) -> Any:
    """The parents' config with the merged model's depth and, where the family has them, layer types."""
    merged = copy.deepcopy(config)
    if genome.slices:
        path = layers_of(genome.slices)
        merged.num_hidden_layers = len(path)
        if getattr(merged, "layer_types", None):
            merged.layer_types = [config.layer_types[layer] for _, layer in path]
    return merged
