"""The winner as a mergekit YAML, so that anybody can rerun it: `mergekit-yaml mergekit.yaml OUT`.

linear, slerp, ties and frankenmerge give our numbers to 1e-6 (a test runs mergekit and compares). DARE's masks come
from mergekit's own random numbers, so its rerun is another draw from the same distribution; the file says so.
dfs has no counterpart, and mergekit's table for Llama has no biases: neither gets a recipe.
"""

from collections.abc import Sequence
from typing import Any

import yaml

from phases.evomerge.genome import Genome
from phases.evomerge.linear import trunk_weights

DARE_NOTE = (
    "# mergekit draws its own DARE masks (--random-seed): same distribution, other draw than the checkpoint's.\n"
)


def mergekit_covers(config: Any, tensors: Sequence[str]) -> bool:
    """False where mergekit would leave tensors out without a word: its table for Llama has no biases."""
    return config.model_type != "llama" or not any(name.endswith(".bias") for name in tensors)


def mergekit_recipe(genome: Genome, paths: Sequence[str]) -> dict[str, Any] | None:
    """The merge as a mergekit config over model paths (the trunk's first); None where mergekit has no such method."""
    if genome.method == "dfs":
        return None
    body = _BODIES[genome.method](genome, paths)
    return {"merge_method": _NAMES.get(genome.method, genome.method), **body, "dtype": "float32"}


def recipe_text(genome: Genome, paths: Sequence[str], digests: Sequence[str]) -> str | None:
    """The YAML file's text: how to run it, which parents by digest, the config. None as above."""
    recipe = mergekit_recipe(genome, paths)
    if recipe is None:
        return None
    head = "# Run in this folder: mergekit-yaml mergekit.yaml OUT\n"
    head += DARE_NOTE if genome.method in ("dare_linear", "dare_ties") else ""
    head += "".join(f"# {path}: {digest}\n" for path, digest in zip(paths, digests, strict=True))
    return head + yaml.safe_dump(recipe, sort_keys=False)


def _linear(genome: Genome, paths: Sequence[str]) -> dict[str, Any]:
    """Models of weight zero are left out: they would be read for nothing."""
    weighted = zip(paths, trunk_weights(genome.weights), strict=True)
    models = [{"model": path, "parameters": {"weight": weight}} for path, weight in weighted if weight]
    return {"models": models, "parameters": {"normalize": True}}


def _slerp(genome: Genome, paths: Sequence[str]) -> dict[str, Any]:
    assert genome.pair is not None
    pair = [paths[i] for i in genome.pair]
    return {"models": [{"model": p} for p in pair], "base_model": pair[0], "parameters": {"t": genome.t}}


def _ties(genome: Genome, paths: Sequence[str]) -> dict[str, Any]:
    options = {"normalize": True, "int8_mask": False, "lambda": genome.scale}
    return {"models": _sparse(paths, genome.weights, genome.densities), "base_model": paths[0], "parameters": options}


def _dare(genome: Genome, paths: Sequence[str]) -> dict[str, Any]:
    """mergekit can only rescale to the L1 norm; 1/density is put into the weight instead."""
    l1 = genome.rescale == "l1"
    pairs = zip(genome.weights, genome.densities, strict=True)
    weights = genome.weights if l1 else tuple(weight / density for weight, density in pairs)
    options = {"normalize": False, "rescale": l1, "int8_mask": False}
    return {"models": _sparse(paths, weights, genome.densities), "base_model": paths[0], "parameters": options}


def _sparse(paths: Sequence[str], weights: Sequence[float], densities: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {"model": path, "parameters": {"weight": weight, "density": density}}
        for path, weight, density in zip(paths[1:], weights, densities, strict=True)
    ]


def _slices(genome: Genome, paths: Sequence[str]) -> dict[str, Any]:
    slices = [{"sources": [{"model": paths[p], "layer_range": [a, b]}]} for p, a, b in genome.slices]
    return {"slices": slices}


_NAMES = {"frankenmerge": "passthrough"}
_BODIES = {
    "linear": _linear,
    "slerp": _slerp,
    "ties": _ties,
    "dare_linear": _dare,
    "dare_ties": _dare,
    "frankenmerge": _slices,
}
