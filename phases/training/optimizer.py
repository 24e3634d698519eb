"""Muon for the matrices inside the layers, AdamW for the rest.

Muon orthogonalises the momentum of a weight matrix by a Newton–Schulz iteration (Jordan et al. 2024; scaled as in
arXiv 2502.16982); embeddings, head, norms and biases are not such matrices and keep AdamW (arXiv 1711.05101).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from phases.training.config import TrainingConfig
from phases.training.muon import Muon


def build_optimizers(model: torch.nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a model's trainable parameters; every group remembers its peak rate as `peak`."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    inner = {n for n, p in named if is_layer_matrix(n, p)} if config.optimizer == "muon" else set()
    rest = [(n, p) for n, p in named if n not in inner]
    groups = [
        {"params": [p for _, p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for _, p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    rate = config.learning_rate
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        kept = [g for g in groups if g["params"]]
        optimizers.append(torch.optim.AdamW(kept, lr=rate, betas=(0.9, 0.95), fused=True))
    if inner:
        matrices = [p for n, p in named if n in inner]
        optimizers.append(Muon(matrices, lr=config.matrix_learning_rate, weight_decay=config.weight_decay))
    for group in (g for o in optimizers for g in o.param_groups):
        group["peak"] = group["lr"]
    return optimizers


def is_layer_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether Muon fits: a two-dimensional weight of a decoder layer (not embedding, not head)."""
    return parameter.ndim == 2 and ".layers." in f".{name}" and not name.endswith("embed_tokens.weight")


def set_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Every group's rate becomes `factor` × its peak."""
    for group in (g for o in optimizers for g in o.param_groups):
        group["lr"] = group["peak"] * factor


def flatten_state(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """All state tensors under `optimizer.<which>.<parameter>.<name>`; the rates follow from the step."""
    flat = {}
    for which, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for name, tensor in state.items():
                flat[f"optimizer.{which}.{index}.{name}"] = tensor.detach().clone()
    return flat


def restore_state(optimizers: Sequence[torch.optim.Optimizer], flat: dict[str, torch.Tensor]) -> None:
    """The inverse of `flatten_state`, for optimizers built from the same model and config."""
    for which, optimizer in enumerate(optimizers):
        full: dict[str, Any] = optimizer.state_dict()
        states: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in flat.items():
            owner, index, name = key.removeprefix("optimizer.").split(".", 2)
            if int(owner) == which:
                states.setdefault(int(index), {})[name] = tensor
        full["state"] = states
        optimizer.load_state_dict(full)


def step_all(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """One step of each optimizer; gradients are freed."""
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
