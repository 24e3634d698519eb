"""An agent's experts: its weights with a mixture of expert vectors, or with one of them alone.

    experts = Experts.open(open_checkpoint("checkpoints/laptop/adas"), Path("checkpoints/laptop/adas"))
    model = experts.model(Mixture(recipe="found"))
    model = experts.model(Mixture(kind="task"), expert="python")

What is added goes into the latent weights, which are then rounded: a ternary model stays one. The files are described
in `phases.adas.vectors`. Cost for a model of a million weights: under 50 ms a mixture, and once 0.3 s for singular
vectors.
"""

from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phases.adas.mixing import elected, weighted_sum
from phases.adas.singular import Singular, decompose
from phases.adas.vectors import EXPERTS as EXPERTS
from phases.adas.vectors import EXPERTS_INDEX as EXPERTS_INDEX
from phases.adas.vectors import TASK_VECTORS as TASK_VECTORS
from phases.adas.vectors import ExpertIndex, Kind, Vectors, check_names, read_index, read_vectors, weights_digest
from phases.adas.vectors import has_experts as has_experts
from phases.agent.design import Mixture
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.lattice import ternary
from phases.bitnet.storage import is_ternary, open_latent, refuse_packed
from phases.bitnet.tensors import ternary_names
from phases.checkpoint import Checkpoint
from phases.errors import CheckpointError

KEPT = 4
"""Models that are kept, the base left out."""


class Experts:
    """A base model and what can be added to it."""

    def __init__(
        self,
        model: Any,
        latent: Mapping[str, torch.Tensor],
        quantisation: Quantisation | None,
        index: ExpertIndex,
        vectors: Mapping[Kind, Vectors],
    ) -> None:
        """`model`: the base, plain; `latent`: its latent weights, or the linear ones of a model without a lattice."""
        self.base = model.eval().requires_grad_(False)
        """The model without any expert."""
        self.index, self.names = index, index.names
        self._latent, self._quantisation, self._vectors = latent, quantisation, vectors
        self._matrices = ternary_names(model)
        self._elected: dict[Kind, Mapping[str, torch.Tensor]] = {}
        self._kept: OrderedDict[str, Any] = OrderedDict()

    @classmethod
    def open(cls, base: Checkpoint, vectors: Path) -> "Experts":
        """The experts in the folder `vectors`, for the very weights of `base`.

        Raises `CheckpointError` for files that are missing, damaged or of another model.
        """
        refuse_packed(base, "adding experts")
        index = read_index(vectors)
        quantised = open_latent(base) if is_ternary(base.path) else None
        model = base.model() if quantised is None else quantised.model
        if quantised is None:
            latent = {name: model.get_parameter(name).detach().clone() for name in ternary_names(model)}
        else:
            latent = quantised.latent()
            quantised.fold()
        linear = {name: latent[name] for name in ternary_names(model)}
        if weights_digest(linear) != index.base:
            raise CheckpointError(
                f"{vectors / EXPERTS_INDEX}: its experts belong to other weights than those of {base.path}; give the "
                "checkpoint that they were learnt on"
            )
        shapes = {name: weight_OI.shape for name, weight_OI in linear.items()}
        found = {kind: read_vectors(vectors, index, kind, shapes) for kind in index.kinds}
        return cls(model, latent, None if quantised is None else quantised.quantisation, index, found)

    def weights(self, mixture: Mixture) -> dict[str, float]:
        """α by expert: those of the mixture, else of its recipe, times its scale; experts of weight 0 left out.

        Raises `CheckpointError` for experts or a kind that there are not, or weights that have not been found yet.
        """
        check_names(self.names, mixture.weights, "mixture.weights")
        chosen: Mapping[str, float] = mixture.weights
        if not chosen and mixture.recipe in ("uniform", "ties"):
            chosen = dict.fromkeys(self.names, 1 / len(self.names))
        elif not chosen and mixture.recipe == "found":
            if mixture.kind not in self.index.found:
                raise CheckpointError(
                    f"{EXPERTS_INDEX}: no weights were found for {mixture.kind} experts; choose another recipe or kind"
                )
            chosen = self.index.found[mixture.kind]
        return {name: mixture.scale * weight for name, weight in chosen.items() if mixture.scale * weight}

    def model(self, mixture: Mixture, expert: str | None = None) -> Any:
        """The base with a mixture, a plain model in evaluation mode; `expert`: with that one alone, at `mixture.scale`.

        A mixture without effect gives the base itself. Who changes a model that was given changes it for all.
        """
        mixture = self._alone(mixture, expert)
        if not self.weights(mixture):
            return self.base
        key = mixture.model_dump_json()
        if key not in self._kept:
            self._kept[key] = self._build(self._mixed(mixture))
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def latent(self, mixture: Mixture) -> Quantised | None:
        """A ternary base's model on latent weights with a mixture, ready to be written; None: it is not ternary."""
        if self._quantisation is None:
            return None
        latent = dict(self._latent) | (self._mixed(mixture) if self.weights(mixture) else {})
        return Quantised(deepcopy(self.base).requires_grad_(True), self._quantisation, latent)

    def _alone(self, mixture: Mixture, expert: str | None) -> Mixture:
        if expert is None:
            return mixture
        check_names(self.names, [expert], "expert")
        return mixture.model_copy(update={"recipe": "none", "weights": {expert: 1.0}})

    def _mixed(self, mixture: Mixture) -> dict[str, torch.Tensor]:
        """(O, I) by matrix: latent weights with the mixture."""
        vectors = self._of(mixture.kind)
        if mixture.recipe == "ties" and not mixture.weights:
            changes = {name: merged.double() * mixture.scale for name, merged in self._merged(mixture.kind).items()}
        else:
            changes = weighted_sum(mixture.kind, vectors, self.weights(mixture))
        if mixture.kind == "singular":
            changes = {name: self._singular[name].offset(1 + change_R) for name, change_R in changes.items()}
        # Rounded once, at the end.
        return {name: (self._latent[name].double() + change_OI).float() for name, change_OI in changes.items()}

    def _merged(self, kind: Kind) -> Mapping[str, torch.Tensor]:
        """TIES of all experts, which takes longer than the rest together; kept."""
        if kind not in self._elected:
            self._elected[kind] = elected(kind, self._of(kind))
        return self._elected[kind]

    def _of(self, kind: Kind) -> Vectors:
        if kind not in self._vectors:
            raise CheckpointError(f"{EXPERTS_INDEX}: no {kind} experts; mixture.kind has to be {self.index.kinds[0]}")
        return self._vectors[kind]

    @cached_property
    def _singular(self) -> dict[str, Singular]:
        return {name: decompose(self._latent[name]) for name in self._matrices}

    def _build(self, latent: Mapping[str, torch.Tensor]) -> Any:
        """A copy of the base with other linear weights, which are rounded where it is ternary.

        All other parameters share their memory with the base.
        """
        memo: dict[int, Any] = {}
        for name, parameter in self.base.named_parameters():
            value = parameter.detach()
            if name in latent:
                weight_OI = latent[name]
                if self._quantisation is not None:
                    weight_OI = ternary(weight_OI, self._quantisation.group).dequantise()
                value = weight_OI.to(value)
            memo[id(parameter)] = nn.Parameter(value, requires_grad=False)
        return deepcopy(self.base, memo)
