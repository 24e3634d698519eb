"""Low-rank adapters by peft, trained and merged through the lattice of a ternary model (LoRA, arXiv 2106.09685).

    y = Q(W_latent + s · B A) x

peft holds A and B, initialises them, and says what their product is; that is added to the latent weight *before* it is
quantised. An adapter beside a ternary layer would be lost when it is rounded into it: the lattice has to be there while
it is trained. Any other model gets plain adapters, which are merged into its weights.
"""

import warnings
from typing import Any

import torch
from torch import nn

from phases.bitnet.tensors import ternary_names
from phases.cognate.config import Adapter
from phases.forge.body import Body


class _Added(nn.Module):
    """The first parametrisation of a weight: its adapter's update on top."""

    def __init__(self, layer: Any, name: str) -> None:
        super().__init__()
        # Not as a submodule: the layer holds this one already.
        self.held = (layer, name)

    def forward(self, latent_OI: torch.Tensor) -> torch.Tensor:
        layer, name = self.held
        added: torch.Tensor = latent_OI + layer.get_delta_weight(name).to(latent_OI.dtype)
        return added


class Adapted:
    """A model with adapters on all its linear layers, from here until `merge`."""

    NAME = "default"

    def __init__(self, body: Body, adapter: Adapter) -> None:
        # Imported here: peft pulls in bitsandbytes, seconds that training all weights need not wait.
        from peft import LoraConfig, get_peft_model

        self.body = body
        names = (
            [name.removesuffix(".weight") for name in ternary_names(body.model)]
            if body.quantised is None
            else [name.removesuffix(".weight") for name in body.quantised.ternary]
        )
        lora = LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout if body.quantised is None else 0.0,
            target_modules=names,
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            # peft 0.21 still asks transformers by a name that transformers 5 has deprecated.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            self.peft: Any = get_peft_model(body.model, lora)
        self.layers = [module for module in self.peft.modules() if hasattr(module, "lora_A")]
        if body.quantised is not None:
            for layer in self.layers:
                layer.get_base_layer().parametrizations.weight.insert(0, _Added(layer, self.NAME))
                layer.merged_adapters.append(self.NAME)  # as peft sees it: the weight that it reads has the update

    def merge(self) -> None:
        """Put the updates into the weights, latent ones where there are such, and take the adapters off."""
        if self.body.quantised is None:
            self.body.model = self.peft.merge_and_unload()
        else:
            for layer in self.layers:
                base = layer.get_base_layer()
                with torch.no_grad():
                    base.parametrizations.weight.original.add_(layer.get_delta_weight(self.NAME))
                del base.parametrizations.weight[0]
                layer.merged_adapters.clear()
            self.body.model = self.peft.unload()
        self.body.model.requires_grad_(True)
