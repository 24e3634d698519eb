"""Activations on 255 levels, one step a token: what the integer kernels multiply with (BitNet b1.58, arXiv 2402.17764).

    step = max(max |x|, 1e-5) / 127,   codes = round(x / step)

The same rounding as `phases.bitnet.estimator.quantise_activations`, which models are trained with, but the integers
and the step apart: a sum of integers is exact, and the scales come after it.
"""

from typing import Literal

import torch

Activations = Literal["int8", "exact"]
"""`int8`: rounded as above, which BitNet models are trained with; `exact`: as they come."""

LEVELS = 127
SMALLEST = 1e-5


def rounded(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(…, I) integers in float32, and (…, 1) their step; NaN and infinities make the step NaN or infinite."""
    x = x.float()
    step = x.abs().amax(-1, keepdim=True).clamp(min=SMALLEST) / LEVELS
    return (x / step).round_(), step
