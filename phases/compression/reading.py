"""Held-out rows as a decoder reads them: from the first layer on, or from that of the one matrix that was changed.

    reading = Reading(parent_model, tokens_BT, counts_BT)
    reading.hidden(model)                                        # (N, D) last hidden states where tokens count
    reading.hidden(model, changed="model.layers.5.mlp.up_proj.weight")     # the same bits, from layer 5 on

What enters a layer is kept for as long as matrices of that layer are tried, so that trying all matrices in their order
reads about half of the layers. Everything is computed on the device that the model is on.

Shapes: B rows, T positions, N tokens that count, D hidden.
"""

from dataclasses import dataclass
from typing import Any

import torch

from phases.architecture import decoder_layers, final_norm, layer_output

MICRO = 4
"""Rows that are read at a time."""


@dataclass
class _Part:
    """A few of the rows."""

    tokens_BT: torch.Tensor
    counts_BT: torch.Tensor
    calls: list[dict[str, Any]]
    """What each layer was called with besides its hidden states."""
    entered_BTD: torch.Tensor | None = None
    """What enters the layer that trials are at."""


class Reading:
    """Some rows, and where trials of their reading are."""

    def __init__(self, tokens_BT: torch.Tensor, counts_BT: torch.Tensor) -> None:
        """(B, T+1) tokens, and (B, T) bool which of the predictions of tokens[:, 1:] count."""
        split = zip(torch.split(tokens_BT[:, :-1], MICRO), torch.split(counts_BT, MICRO), strict=True)
        self._parts = [_Part(tokens, counts, []) for tokens, counts in split]
        self._layer = 0

    @torch.no_grad()
    def hidden(self, model: Any, changed: str | None = None) -> torch.Tensor:
        """(N, D) float32. `changed`: the name of the only parameter that is not as in the calls before."""
        layer = None if changed is None else _layer_of(model, changed)
        if layer is None:
            found = [self._whole(model, part, keep=False) for part in self._parts]
        else:
            found = [self._from(model, part, layer) for part in self._parts]
            self._layer = layer
        return torch.cat(found)

    def _from(self, model: Any, part: _Part, layer: int) -> torch.Tensor:
        """Goes on at `layer`, through which layers before it are read at most once."""
        layers, first = decoder_layers(model), self._layer
        if part.entered_BTD is None or layer < first:
            self._whole(model, part, keep=True)
            first = 0
        assert part.entered_BTD is not None
        for number in range(first, layer):
            part.entered_BTD = _apply(layers[number], part.entered_BTD, part.calls[number])
        hidden_BTD = part.entered_BTD
        for number in range(layer, len(part.calls)):
            hidden_BTD = _apply(layers[number], hidden_BTD, part.calls[number])
        return _counting(final_norm(model)(hidden_BTD), part)

    def _whole(self, model: Any, part: _Part, keep: bool) -> torch.Tensor:
        """All layers; what enters the first and how each is called is kept if asked for."""
        calls: list[dict[str, Any]] = []
        entered: list[torch.Tensor] = []

        def see(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            (hidden_BTD,) = args
            calls.append(kwargs)
            entered.append(hidden_BTD)

        layers = decoder_layers(model) if keep else ()
        hooks = [layer.register_forward_pre_hook(see, with_kwargs=True) for layer in layers]
        try:
            read = model.base_model(input_ids=part.tokens_BT.to(model.device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        if keep:
            part.calls, part.entered_BTD = calls, entered[0]
        return _counting(read.last_hidden_state, part)


def _apply(layer: Any, hidden_BTD: torch.Tensor, call: dict[str, Any]) -> torch.Tensor:
    return layer_output(layer(hidden_BTD, **call))


def _counting(hidden_BTD: torch.Tensor, part: _Part) -> torch.Tensor:
    return hidden_BTD[part.counts_BT.to(hidden_BTD.device)].float()


def _layer_of(model: Any, name: str) -> int | None:
    """Which layer has this parameter; None: none of them."""
    param = dict(model.named_parameters())[name]
    for number, layer in enumerate(decoder_layers(model)):
        if any(own is param for own in layer.parameters()):
            return number
    return None
