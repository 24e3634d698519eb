"""How deep a model is read: up to an early layer, without one of its layers, or against what an early layer predicts.

    reader = Reader(model, Decoding(depth=0.5))
    rows = Rows(reader.model, prompts)
    scores_BV = reader.score(rows.logits(), written)

An early exit is the first layers, then the model's own norm and head (LayerSkip, arXiv 2404.16710). `reader.model` is a
second model of the same weights that has only the layers which run: the others cost no time and no cache, nothing has
to be put back, and others may use the model meanwhile. DoLa (arXiv 2309.03883) takes off the log-probabilities of the
early layer that differs most from the last; it reads all layers, and applies the head to several.

A thinking model cannot be read early: its thoughts need all layers, and without them it is another model. There all of
these settings are left out.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from phases.agent.design import Decoding
from phases.agent.penalties import without_ngrams
from phases.architecture import decoder_layers, final_norm, layer_output
from phases.quiet_star.decoder import ThinkingDecoder

PLAUSIBLE = 0.1
"""α of DoLa: tokens less than so likely as the likeliest cannot be chosen, however much the layers differ."""


class Reader:
    """Reads a model as a design wants it read."""

    def __init__(self, model: Any, decoding: Decoding) -> None:
        self.model = model
        """What rows are to be read with."""
        self.exits: list[int] = []
        """Depths that the last layer is compared with."""
        self.ngram = decoding.no_repeat_ngram
        self._early: dict[int, torch.Tensor] = {}
        if isinstance(model.base_model, ThinkingDecoder):
            return
        kept = kept_layers(model.config.num_hidden_layers, decoding.depth, decoding.skip)
        self.exits = early_exits(len(kept), decoding.layer_contrast)
        if self.exits or len(kept) < model.config.num_hidden_layers:
            self.model = with_layers(model, kept, {depth - 1: self._early for depth in self.exits})

    def score(self, logits_BV: torch.Tensor, written: Sequence[Sequence[int]]) -> torch.Tensor:
        """(B, V) what tokens are chosen by, of the logits that were just read: the same, where nothing is set.

        `written` are the tokens of each row so far: what would repeat an n-gram is not plausible, or where the model is
        sure of it nothing would be left.
        """
        if not self.exits:
            return logits_BV
        hidden_EBD = torch.stack([self._early[depth - 1] for depth in self.exits])
        early_EBV = self.model.get_output_embeddings()(final_norm(self.model)(hidden_EBD))
        return contrast(without_ngrams(logits_BV, written, self.ngram), early_EBV)


def kept_layers(layers: int, depth: float, skip: float | None) -> list[int]:
    """Indices of the layers that run: the first of them, as a share of all, without the one at the share `skip`.

    At least one layer is left. A layer that is beyond the exit does not have to be left out.
    """
    kept = list(range(max(1, round(depth * layers))))
    if skip is not None and len(kept) > 1:
        kept = [layer for layer in kept if layer != round(skip * (layers - 1))]
    return kept


def early_exits(layers: int, half: Literal["none", "low", "high"]) -> list[int]:
    """Depths before the last in one half of a model; none where it has one layer only.

    The embedding, where DoLa may begin, is left out: where it is the head too, it predicts the token that it was given.
    """
    below = range(1, layers)
    if half == "none" or not below:
        return []
    low = [depth for depth in below if 2 * depth <= layers]
    return low if half == "low" else [depth for depth in below if depth not in low] or [layers - 1]


def contrast(logits_BV: torch.Tensor, early_EBV: torch.Tensor) -> torch.Tensor:
    """(B, V) log-probabilities less those of the early exit that differs most; −∞ for what is not plausible (DoLa).

    Each row has its own exit: the one of E with the largest Jensen-Shannon divergence from the last layer.
    """
    last_BV, early_EBV = logits_BV.float().log_softmax(-1), early_EBV.float().log_softmax(-1)
    exit_B = divergence(last_BV.exp(), early_EBV.exp()).argmax(0)
    early_BV = early_EBV[exit_B, torch.arange(len(logits_BV), device=exit_B.device)]
    least_B1 = last_BV.amax(-1, keepdim=True) + math.log(PLAUSIBLE)
    return (last_BV - early_BV).masked_fill(last_BV < least_B1, float("-inf"))


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(…) Jensen-Shannon divergence of distributions (…, V), nats: entropy of the mixture less the mean entropy."""
    entropies: list[torch.Tensor] = [torch.special.entr(x).sum(-1) for x in ((p + q) / 2, p, q)]
    return entropies[0] - (entropies[1] + entropies[2]) / 2


def with_layers(model: Any, kept: Sequence[int], watched: Mapping[int, dict[int, torch.Tensor]] | None = None) -> Any:
    """A model of the same weights with some of the decoder layers only; the model itself stays as it is.

    `watched` says where the newest (B, D) hidden states after a layer are put, by its place among those kept.
    """
    stack, prefix = decoder_layers(model), model.base_model_prefix
    twin, body, config = _twin(model), _twin(model.base_model), copy.copy(model.config)
    config.num_hidden_layers = len(kept)
    types = getattr(config, "layer_types", None)
    if types is not None:
        config.layer_types = [types[layer] for layer in kept]
    layers = [_placed(stack[layer], place) for place, layer in enumerate(kept)]
    for place, states in (watched or {}).items():
        layers[place] = _watched(layers[place], place, states)
    twin.config = body.config = config
    twin._modules[prefix] = body
    name = next(name for name, child in body.named_children() if child is stack)
    body._modules[name] = torch.nn.ModuleList(layers)
    return twin


def _twin(module: Any) -> Any:
    """A second module of the same parts, which can be given others."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def _placed(module: Any, place: int) -> Any:
    """The layer with its keys and values at another place of the cache."""
    if all(vars(part).get("layer_idx", place) == place for part in module.modules()):
        return module
    twin = _twin(module)
    if "layer_idx" in vars(twin):
        twin.layer_idx = place
    twin._modules = {name: child if child is None else _placed(child, place) for name, child in module._modules.items()}
    return twin


def _watched(layer: Any, place: int, states: dict[int, torch.Tensor]) -> Any:
    """The layer, whose twin keeps what came out of it last."""

    def note(_: Any, __: Any, output: Any) -> None:
        states[place] = layer_output(output)[:, -1]

    twin = _twin(layer)
    twin._forward_hooks = OrderedDict(layer._forward_hooks)
    twin.register_forward_hook(note)
    return twin
