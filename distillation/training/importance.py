"""What a layer, a group of heads or a neuron is worth, measured on calibration rows.

A layer is worth what the loss rises by when it is left out (Minitron, arXiv 2407.14679; ShortGPT, arXiv 2403.03853,
compares its states instead). Layers go one at a time, each chosen given those that are gone already: of L layers the
rows are read L + (L − 1) + … times. A neuron or group is worth the mean square of what it adds to the residual stream,

    neuron j:  E[a_j²] · ‖W_down[:, j]‖²          group g:  E‖W_o[:, g] · a_g‖²

Shapes: N positions, L layers, G groups, I neurons, D width of the stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from phases.agent.depth import with_layers
from phases.architecture import decoder_layers
from phases.errors import DataError
from phases.training.batches import Rows
from phases.training.loss import row_nll

BATCH = 8
"""Rows that are read at a time."""


@dataclass(frozen=True)
class Removal:
    """One layer that was left out."""

    layer: int
    """Its index in the whole model."""
    loss: float
    """Of what was left, nats a weighted token."""


@dataclass(frozen=True)
class Depth:
    """Which layers stay."""

    kept: tuple[int, ...]
    removed: tuple[Removal, ...]
    """In the order in which they went."""
    whole_loss: float
    """Of the model with all its layers."""


def choose_layers(model: Any, rows: Rows, keep: int) -> Depth:
    """Leave out layers one at a time, always the one whose loss hurts least, until `keep` are left."""
    kept, removed = list(range(len(decoder_layers(model)))), []
    whole = mean_loss(model, rows)
    while len(kept) > keep:
        losses = [mean_loss(with_layers(model, [k for k in kept if k != layer]), rows) for layer in kept]
        least = int(np.argmin(losses))
        removed.append(Removal(kept.pop(least), losses[least]))
    return Depth(tuple(kept), tuple(removed), whole)


@torch.inference_mode()
def mean_loss(model: Any, rows: Rows) -> float:
    """Nats a weighted token of the calibration rows."""
    total, head = 0.0, model.get_output_embeddings().weight
    for tokens_BT, weight_BT in _batches(rows):
        hidden_BTD = model.base_model(input_ids=tokens_BT[:, :-1], use_cache=False).last_hidden_state
        chosen = weight_BT > 0
        nll_N = row_nll(hidden_BTD[chosen], head, tokens_BT[:, 1:][chosen])
        total += float((nll_N.double() * weight_BT[chosen]).sum())
    return total / float(rows.weight_BT.double().sum())


@torch.inference_mode()
def channel_scores(model: Any, rows: Rows, groups: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """((L, G) of key-value groups, (L, I) of neurons): mean square of what each adds to the stream; no padding."""
    layers: list[Any] = list(decoder_layers(model))
    seen, hooks = _Seen(), []
    for place, layer in enumerate(layers):
        hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(seen.of_groups(place, groups)))
        hooks.append(layer.mlp.down_proj.register_forward_pre_hook(seen.of_neurons(place)))
    try:
        for tokens_BT, weight_BT in _batches(rows):
            # What follows the last weighted token of a row is padding.
            seen.real = weight_BT.flip(1).cumsum(1).flip(1) > 0
            model.base_model(input_ids=tokens_BT[:, :-1], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return seen.scores("group", len(layers)), seen.scores("neuron", len(layers))


class _Seen:
    """Sums over positions, by what and in which layer."""

    def __init__(self) -> None:
        self.total: dict[tuple[str, int], torch.Tensor] = {}
        self.real = torch.zeros(0)
        self.count = 0

    def scores(self, kind: str, layers: int) -> npt.NDArray[np.float64]:
        """(L, …) means over the positions that were seen."""
        return np.stack([self.total[kind, place].numpy() for place in range(layers)]) / self.count

    def of_groups(self, place: int, groups: int) -> Any:
        def add(module: Any, args: tuple[torch.Tensor, ...]) -> None:
            states_NGE = args[0][self.real].reshape(-1, groups, module.in_features // groups)
            parts_DGE = module.weight.reshape(-1, groups, module.in_features // groups)
            added_NGD = torch.einsum("nge,dge->ngd", states_NGE, parts_DGE)
            self._add(("group", place), added_NGD.double().square().sum((0, 2)))
            self.count += len(states_NGE) if place == 0 else 0

        return add

    def of_neurons(self, place: int) -> Any:
        def add(module: Any, args: tuple[torch.Tensor, ...]) -> None:
            squares_I = args[0][self.real].double().square().sum(0)
            self._add(("neuron", place), squares_I * module.weight.double().square().sum(0))

        return add

    def _add(self, key: tuple[str, int], value: torch.Tensor) -> None:
        self.total[key] = self.total[key] + value if key in self.total else value


def _batches(rows: Rows) -> Sequence[tuple[torch.Tensor, torch.Tensor]]:
    if not len(rows.tokens_BT) or not bool((rows.weight_BT > 0).any()):
        raise DataError("student: there are no calibration rows; give at least one record with an answer")
    return list(zip(torch.split(rows.tokens_BT, BATCH), torch.split(rows.weight_BT, BATCH), strict=True))
