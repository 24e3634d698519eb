"""The genome: everything that a merged model depends on besides its parents, as one line of JSON.

Parents are numbered as in the phase: 0 is the trunk, 1 … N are the specialised models. Only the fields that a
method uses are set, so equal merges are equal genomes and a score is never measured twice.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from phases.evomerge.dare import Rescale
from phases.evomerge.frankenmerge import Slice, layers_of
from phases.strict import StrictModel

Method = Literal["linear", "slerp", "ties", "dare_linear", "dare_ties", "frankenmerge", "dfs"]
METHODS: tuple[Method, ...] = ("linear", "slerp", "ties", "dare_linear", "dare_ties", "frankenmerge", "dfs")
WEIGHTED: tuple[Method, ...] = ("linear", "slerp", "ties", "dare_linear", "dare_ties")
"""Methods that blend numbers; the other two lay out layers."""
SPARSE: tuple[Method, ...] = ("ties", "dare_linear", "dare_ties")
"""Methods with densities."""


class Genome(StrictModel):
    """One candidate merge."""

    method: Method
    """How the parents are put together."""
    weights: tuple[float, ...] = ()
    """w₁ … w_N of the task vectors (linear, ties, dare)."""
    densities: tuple[float, ...] = ()
    """Share of each task vector that is kept, 0 … 1 (ties, dare)."""
    scale: float = 1.0
    """λ on the merged task vector (ties)."""
    pair: tuple[int, int] | None = None
    """The two models that slerp walks between."""
    t: float = Field(0.0, ge=0, le=1)
    """How far slerp walks, 0 … 1."""
    rescale: Rescale = "density"
    """What DARE keeps after dropping: the expectation or the L1 norm."""
    mask_seed: int = 0
    """Seed of DARE's masks."""
    slices: tuple[Slice, ...] = ()
    """(parent, first layer, layer after the last) in the order of the new model (frankenmerge, dfs)."""
    scales: tuple[float, ...] = ()
    """W: what the input of each step is multiplied by (dfs)."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.method in ("frankenmerge", "dfs") and not self.slices:
            raise ValueError(f"{self.method} needs slices")
        if self.method == "slerp" and self.pair is None:
            raise ValueError("slerp needs a pair")
        if self.method in ("linear", *SPARSE) and not self.weights:
            raise ValueError(f"{self.method} needs weights")
        if self.method in SPARSE and len(self.densities) != len(self.weights):
            raise ValueError(f"{self.method} needs as many densities as weights")
        if self.method in ("ties", "dare_ties") and min(self.weights) < 0:
            raise ValueError(f"{self.method} needs weights that are not negative")
        if self.method == "dfs" and len(self.scales) != len(layers_of(self.slices)):
            raise ValueError("dfs needs one scale a layer")
        return self

    @property
    def key(self) -> str:
        """The genome as one canonical line of JSON."""
        return self.model_dump_json()

    @property
    def depth(self) -> int | None:
        """Layers of the merged model; None where it is the parents' own depth."""
        return len(layers_of(self.slices)) if self.slices else None

    def describe(self, names: tuple[str, ...]) -> str:
        """One readable line; `names` are the trunk's and the parents'."""
        if self.method == "slerp" and self.pair:
            a, b = self.pair
            return f"slerp {names[a]} → {names[b]} at {self.t:.3f}"
        if self.slices:
            parts = [f"{names[p]}[{a}:{b}]" for p, a, b in self.slices]
            scales = f", W {min(self.scales):.2f}…{max(self.scales):.2f}" if self.scales else ""
            return f"{self.method} {' + '.join(parts)}{scales}"
        densities = self.densities or (None,) * len(self.weights)
        parts = [
            f"{w:.3f}·{name}" + ("" if d is None else f"@{d:.2f}")
            for name, w, d in zip(names[1:], self.weights, densities, strict=True)
        ]
        return f"{self.method} {names[0]} + " + " + ".join(parts)


def single_parent(parent: int, parents: int) -> Genome:
    """The merge that is parent number `parent` of `parents` itself; 0 is the trunk."""
    return Genome(method="linear", weights=tuple(float(i == parent) for i in range(1, parents + 1)))


def uniform_soup(parents: int) -> Genome:
    """The mean of the specialised models (arXiv 2203.05482)."""
    return Genome(method="linear", weights=(1 / parents,) * parents)


def baselines(names: tuple[str, ...]) -> dict[str, Genome]:
    """What every search starts from and has to beat: the trunk, each parent, the uniform soup."""
    parents = len(names) - 1
    single = {name: single_parent(i, parents) for i, name in enumerate(names)}
    return {**single, "uniform soup": uniform_soup(parents)}
