"""A sum over parts whose gradients are taken part by part, so that only one part's activations are ever held.

The thoughts of different positions meet only in the text that they hang at. So the graph of a few positions can be
built, differentiated with respect to the text and the weights, and thrown away before the next positions; what goes
back through the text is the sum. Memory then does not grow with the number of positions, and nothing is computed twice.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

Compute = Callable[..., torch.Tensor]
"""compute(part, *shared) -> scalar."""


class _Sum(torch.autograd.Function):
    """Σ compute(part, *shared); the gradients are computed with the value and scaled in backward."""

    @staticmethod
    def forward(ctx: Any, compute: Compute, parts: Iterable[Any], count: int, *inputs: torch.Tensor) -> torch.Tensor:
        shared = [x.detach().requires_grad_(x.requires_grad) for x in inputs[:count]]
        wanted = [x for x in (*shared, *inputs[count:]) if x.requires_grad]
        sums: list[torch.Tensor | None] = [None] * len(wanted)
        total = torch.zeros((), device=inputs[0].device)
        for part in parts:
            with torch.enable_grad():
                value = compute(part, *shared)
            # Backward passes run outside of autocast.
            with torch.autocast(value.device.type, enabled=False):
                found = torch.autograd.grad(value, wanted, allow_unused=True)
            total += value.detach()
            sums = [_plus(a, b) for a, b in zip(sums, found, strict=True)]
        made = iter(sums)
        ctx.gradients = [next(made) if x.requires_grad else None for x in inputs]
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scaled = [None if g is None else g * grads[0].to(g.dtype) for g in ctx.gradients]
        return (None, None, None, *scaled)


def _plus(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def sum_parts(
    compute: Compute, parts: Iterable[Any], shared: Sequence[torch.Tensor], parameters: Iterable[torch.Tensor]
) -> torch.Tensor:
    """Σ over `parts` of the scalar `compute(part, *shared)`, with gradients to `shared` and to the `parameters`.

    `compute` must use no other tensor that wants a gradient. Without gradients it is the plain sum.
    """
    if not torch.is_grad_enabled():
        return torch.stack([compute(part, *shared) for part in parts]).sum()
    result: torch.Tensor = _Sum.apply(compute, parts, len(shared), *shared, *parameters)  # type: ignore[no-untyped-call]
    return result
