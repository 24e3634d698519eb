"""Bits per byte as a ratio of sums over text blocks, with the ratio estimator's standard error.

A block has nats (negative log-likelihood) and bytes; bits per byte is Σ nats / (ln 2 · Σ bytes). Its standard error
treats the blocks as the sampled units (Cochran, Sampling Techniques, 1977, eq. 6.13): with residuals
e = nats − R · bytes, SE(R) = √(n/(n − 1) · Σ e²) / Σ bytes. Comparing two models on the same blocks uses the
differences of their nats, which is the paired form.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.metric import Control, Metric


@dataclass(frozen=True)
class BlockLosses:
    """What a predictor paid for each of N text blocks."""

    nats_N: npt.NDArray[np.float64]
    bytes_N: npt.NDArray[np.float64]
    tokens: int
    """Predicted tokens a block, T."""

    @property
    def not_finite(self) -> int:
        """Blocks whose loss is NaN or infinite."""
        return int((~np.isfinite(self.nats_N)).sum())


def ratio(x_N: npt.NDArray[np.float64], y_N: npt.NDArray[np.float64]) -> tuple[float, float | None]:
    """Σx/Σy and its standard error; None for the error when there is one unit only."""
    total, n = float(y_N.sum()), len(x_N)
    if total <= 0:
        raise ValueError("the denominators sum to zero; the text blocks stand for no bytes")
    value = float(x_N.sum()) / total
    if n < 2:
        return value, None
    residual_N = x_N - value * y_N
    return value, math.sqrt(n / (n - 1) * float((residual_N**2).sum())) / total


def bits_per_byte(losses: BlockLosses, name: str, split: str, parent: float | None = None) -> Metric:
    """Bits per byte over the blocks."""
    value, error = ratio(losses.nats_N / math.log(2), losses.bytes_N)
    return Metric(
        name=name, split=split, value=value, stderr=error, n=len(losses.nats_N), unit="bits/byte", parent=parent
    )


def perplexity(losses: BlockLosses, name: str, split: str, parent: float | None = None) -> Metric:
    """exp of the mean nats a token; its standard error by the delta method, ppl · SE(mean)."""
    tokens_N = np.full_like(losses.nats_N, losses.tokens)
    mean, error = ratio(losses.nats_N, tokens_N)
    value = math.exp(mean)
    return Metric(
        name=name,
        split=split,
        value=value,
        stderr=None if error is None else value * error,
        n=len(losses.nats_N),
        unit="perplexity/token",
        parent=parent,
    )


def bits_difference(ours: BlockLosses, other: BlockLosses) -> tuple[float, float | None]:
    """Ours less the other's bits per byte on the same blocks, and the paired standard error."""
    if ours.bytes_N.shape != other.bytes_N.shape or not np.array_equal(ours.bytes_N, other.bytes_N):
        raise ValueError("bits per byte can be paired on the same text blocks only; measure both on the same")
    return ratio((ours.nats_N - other.nats_N) / math.log(2), ours.bytes_N)


def text_control(name: str, ours: BlockLosses, other: BlockLosses, budget: str) -> Control:
    """Ours against another model on the text, as −bits per byte: more is better."""
    values = [-bits_per_byte(losses, "", "").value for losses in (ours, other)]
    difference, stderr = bits_difference(ours, other)
    return Control(
        name=name,
        metric="−bits per byte",
        ours=values[0],
        control=values[1],
        difference=-difference,
        stderr=stderr,
        n=len(ours.nats_N),
        budget=budget,
    )
