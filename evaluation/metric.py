"""What a measurement is: a metric with n and standard error, a control, a gate; the shapes of the report contract.

A value without its n and standard error cannot be judged, so the constructors here take one number per unit (item or
text block) and work both out. Standard errors are those of a mean of independent units.
"""

import operator
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from phases.strict import StrictModel

Values = npt.NDArray[Any]
"""(n,) one number or truth value a unit."""
Comparison = Literal["<", "<=", ">", ">="]
_COMPARE: dict[Comparison, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Metric(StrictModel):
    """One measured number."""

    name: str
    """`<model>/<what>`, e.g. `memory/recall_accuracy`."""
    split: str
    """The split that it was measured on."""
    value: float
    stderr: float | None = Field(None, ge=0)
    """Standard error of the value; None where there are fewer than two units."""
    n: int = Field(ge=0)
    """Units (items, text blocks) behind the value."""
    unit: str
    """What the value counts, e.g. `bits/byte` or `share`."""
    parent: float | None = None
    """The same metric of the parent; None where there is no parent."""


class Control(StrictModel):
    """The same budget spent the plain way, and what it brought."""

    name: str
    """What the control is, e.g. `random search`."""
    metric: str
    """Name of the metric that is compared."""
    ours: float
    control: float
    difference: float
    """Ours less the control's."""
    stderr: float | None = Field(None, ge=0)
    """Standard error of the difference, paired over the units."""
    n: int = Field(ge=0)
    budget: str
    """What both were given, in words."""


class Gate(StrictModel):
    """A condition that a checkpoint meets or does not."""

    name: str
    metric: str
    comparison: Comparison
    threshold: float
    value: float
    passed: bool


def standard_error(values: Values) -> float | None:
    """Standard error of the mean of n independent units, s/√n with s over n − 1; None when n < 2."""
    n = len(values)
    if n < 2:
        return None
    numbers = np.asarray(values, dtype=np.float64)
    # Equal numbers have no spread; their mean's rounding would show as 1e-17.
    return 0.0 if np.ptp(numbers) == 0 else float(np.std(numbers, ddof=1) / np.sqrt(n))


def mean_metric(name: str, split: str, values: Values, unit: str = "share", parent: float | None = None) -> Metric:
    """The mean of per-unit values as a metric. Raises `ValueError` when there are none."""
    if len(values) == 0:
        raise ValueError(f"{name}: no units to measure on; give the {split} split at least one")
    value = float(np.mean(np.asarray(values, dtype=np.float64)))
    return Metric(
        name=name, split=split, value=value, stderr=standard_error(values), n=len(values), unit=unit, parent=parent
    )


def paired_control(name: str, metric: str, ours: Values, control: Values, budget: str) -> Control:
    """Ours against the control on the same units, the standard error of the paired difference.

    Raises `ValueError` when the two were not measured on the same number of units.
    """
    if len(ours) != len(control) or len(ours) == 0:
        raise ValueError(f"{name}: {len(ours)} and {len(control)} units cannot be paired; measure both on the same")
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(control, dtype=np.float64)
    return Control(
        name=name,
        metric=metric,
        ours=float(a.mean()),
        control=float(b.mean()),
        difference=float((a - b).mean()),
        stderr=standard_error(a - b),
        n=len(a),
        budget=budget,
    )


def finite_check(not_finite: int, split: str, n: int) -> tuple[Metric, Gate]:
    """The gate that every model meets first: no text block whose loss is NaN or infinite."""
    name = "not_finite_blocks"
    metric = Metric(name=name, split=split, value=not_finite, n=n, unit="blocks")
    return metric, gate("no NaN", name, not_finite, "<=", 0)


def gate(name: str, metric: str, value: float, comparison: Comparison, threshold: float) -> Gate:
    """The gate with its verdict."""
    passed = _COMPARE[comparison](value, threshold)
    return Gate(name=name, metric=metric, comparison=comparison, threshold=threshold, value=value, passed=passed)
