"""How errors are counted: absolute percentage errors, and quantiles of them that intervals are made of."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
TIMES = ("tpot", "ttft")
TAILS = (0.1, 0.9)
"""Of an 80 % interval."""
ENOUGH = 200
"""Points of an engine from which its own intervals are taken."""


def summary(difference: Array) -> dict[str, dict[str, float]]:
    """Mean and median absolute percentage error of log predicted − log measured, (2, N): TPOT, TTFT."""
    error = 100 * np.abs(np.expm1(difference))
    return {
        name: {"mean_ape": round(float(row.mean()), 2), "median_ape": round(float(np.median(row)), 2)}
        for name, row in zip(TIMES, error, strict=True)
    }


def coverage(difference: Array, engines: Sequence[str], groups: Sequence[str]) -> dict[str, float]:
    """Percent of the points within an interval that is made of the other groups' errors only: TPOT, TTFT."""
    labels, of, inside = np.array(groups), np.array(engines), np.zeros(difference.shape, dtype=np.bool_)
    for group in sorted(set(groups)):
        held = labels == group
        made = intervals(difference[:, ~held], list(of[~held]))
        for engine in sorted(set(of[held])):
            rows = held & (of == engine)
            for index, name in enumerate(TIMES):
                low, high = made.get(engine, made["all"])[name]
                inside[index, rows] = (low <= -difference[index, rows]) & (-difference[index, rows] <= high)
    return {name: round(100 * float(row.mean()), 2) for name, row in zip(TIMES, inside, strict=True)}


def intervals(difference: Array, engines: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """10th and 90th percentile of log(measured / predicted), of all points and of each engine with enough of them."""
    labels = np.array(engines)
    groups = {"all": np.ones(len(labels), dtype=np.bool_)}
    groups |= {engine: labels == engine for engine in sorted(set(engines)) if (labels == engine).sum() >= ENOUGH}
    return {
        group: {
            name: [round(float(np.quantile(-row[rows], tail)), 4) for tail in TAILS]
            for name, row in zip(TIMES, difference, strict=True)
        }
        for group, rows in groups.items()
    }
