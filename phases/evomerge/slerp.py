"""Spherical interpolation of two models, tensor by tensor (Shoemake 1985; as mergekit does it)."""

import torch

PARALLEL = 0.9995
"""Above this |cosine| the two tensors count as parallel: the sine in the denominator would amplify rounding."""


def slerp(a: torch.Tensor, b: torch.Tensor, t: float, eps: float = 1e-8) -> torch.Tensor:
    """[sin((1−t)Ω)·a + sin(tΩ)·b] / sin Ω, with Ω the angle between the flattened tensors; t = 0 gives `a`.

    The angle is taken between directions, the sum over the raw tensors. Nearly parallel or opposite tensors, and
    vectors of norm below `eps`, are interpolated linearly.
    """
    cosine = float(torch.dot(_unit(a, eps), _unit(b, eps)).clamp(-1, 1))
    if abs(cosine) > PARALLEL:
        return (1 - t) * a + t * b
    omega = torch.acos(torch.tensor(cosine))
    weight_a = float(torch.sin((1 - t) * omega) / torch.sin(omega))
    weight_b = float(torch.sin(t * omega) / torch.sin(omega))
    return weight_a * a + weight_b * b


def _unit(x: torch.Tensor, eps: float) -> torch.Tensor:
    flat = x.flatten()
    norm = torch.linalg.vector_norm(flat)
    return flat / norm if norm > eps else flat
