"""Muon (Jordan et al. 2024): the momentum of a weight matrix, orthogonalised by a Newton–Schulz iteration.

    M ← β M + (1 − β) G          U = (1 − β) G + β M            (Nesterov)
    X ← U / ‖U‖_F,               X ← a X + (b A + c A²) X  with A = X Xᵀ, five times
    W ← (1 − lr · decay) W − lr · √max(1, rows/columns) · X

The same rule as `torch.optim.Muon`, which iterates in bfloat16 wherever it runs. A processor without bfloat16
arithmetic takes twenty times as long for that: two thirds of a training step (docs/log.md). Here the iteration has
float32 on a CPU and bfloat16 on a GPU, and matrices of one shape are iterated together.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of Jordan et al.: steepest at zero; singular values end between about .7 and 1.2."""
ITERATIONS, MOMENTUM, SMALLEST_NORM = 5, 0.95, 1e-7


class Muon(torch.optim.Optimizer):
    """For two-dimensional weights; `lr` is the rate of a square matrix."""

    def __init__(self, params: Iterable[torch.Tensor], lr: float, weight_decay: float) -> None:
        """Raises `ValueError` for a parameter that is no matrix."""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        if wrong := [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim != 2]:
            raise ValueError(f"Muon is for matrices, not for a parameter of shape {wrong[0]}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step([p for p in group["params"] if p.grad is not None], group["lr"], group["weight_decay"])
        return loss

    def _step(self, parameters: list[torch.Tensor], rate: float, decay: float) -> None:
        # Wide or tall makes no difference to the iteration: tall matrices lie on their side.
        alike: dict[tuple[torch.device, int, int], list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter.grad)
            momentum = state["momentum_buffer"].lerp_(parameter.grad, 1 - MOMENTUM)
            update = parameter.grad.lerp(momentum, MOMENTUM)
            low, high = sorted(update.shape)
            alike.setdefault((update.device, low, high), []).append((parameter, update))
        for found in alike.values():
            stacked = torch.stack([update if _is_wide(update) else update.T for _, update in found])
            for (parameter, update), orthogonal in zip(found, orthogonalised(stacked), strict=True):
                rows, columns = parameter.shape
                parameter.mul_(1 - rate * decay)
                turned = orthogonal if _is_wide(update) else orthogonal.T
                parameter.add_(turned, alpha=-rate * max(1.0, rows / columns) ** 0.5)


def orthogonalised(updates_BMN: torch.Tensor) -> torch.Tensor:
    """(B, M, N), M ≤ N: each matrix with its singular values near 1, to the precision that five iterations give."""
    a, b, c = COEFFICIENTS
    x = updates_BMN.to(torch.bfloat16 if updates_BMN.is_cuda else torch.float32)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _is_wide(matrix: torch.Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]
