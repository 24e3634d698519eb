"""Fit the coefficients of the latency formulas on measured points, and say how well they predict what they never saw.

    python -m deployment.physics.fitting benchmarks.csv --out deployment/physics/coefficients.json      (20 min, CPU)

All terms and offsets at once, TPOT and TTFT together, most probable under their priors (`solving.py`). The result is
deterministic. Errors that it reports are out of fold: every (model, accelerator) pair is predicted by a fit that saw
none of its points. Published variants of one architecture (DeepSeek-V3, -R1, NVFP4 …) are one model there, or the same
run would stand on both sides. `without_the_model` and `without_the_accelerator` leave out all points of one: what to
expect of a system that is new altogether.

Priors, curve and effects were settled by comparing some thirty settings by these very errors, so that the figures
flatter by some tenths of a percent.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployment.physics.coefficients import FILE, OFFSETS, TERMS, Coefficients
from deployment.physics.errors import coverage, intervals, summary
from deployment.physics.latency import Case, closed_loop, stacked
from deployment.physics.solving import Array, Problem, solve
from deployment.physics.terms import Work
from deployment.physics.validation_rows import Measured, read_rows, usable
from phases.errors import ForgeError, InputError
from phases.storage import explain_os_errors, replace_text

STEPS = 40
NUDGE = 1e-4
"""Of a numerical derivative, in logarithms."""
NAMES = (*TERMS, *(f"{factor}:{feature}" for factor, (_, features) in OFFSETS.items() for feature in features))
_NONE = len(NAMES) - len(TERMS)
PROBLEM = Problem(
    centre=np.array([math.log(prior.value) for prior in TERMS.values()] + [0.0] * _NONE),
    spread=np.array(
        [prior.spread for prior in TERMS.values()] + [spread for spread, features in OFFSETS.values() for _ in features]
    ),
    most=np.array([math.log(prior.most) for prior in TERMS.values()] + [math.inf] * _NONE),
    pull=10.0,
    curve=(0.3, 0.8),
    smooth=(0.08, 0.15),  # two to four times the repeat noise of 2.8 and 4.2 %
    weights=(1.0, 0.6),  # TTFT is the noisier
    effects=(0.1, 0.2),
)


class Points:
    """Measured points, stacked, with the labels that they are grouped by."""

    def __init__(self, points: Sequence[Measured]) -> None:
        self.points = list(points)
        self.case = stacked([point.case for point in points])
        self.observed: Array = np.log(np.array([[p.tpot for p in points], [p.ttft for p in points]]))
        self.pairs = [f"{point.architecture} on {point.accelerator.name}" for point in points]
        self.cells = numbered([f"{pair}, {p.engine} {p.mode}" for pair, p in zip(self.pairs, points, strict=True)])


def coefficients(x: Array, report: dict[str, Any]) -> Coefficients:
    """The fitted vector in its own words."""
    terms = {name: math.exp(value) for name, value in zip(TERMS, x, strict=False)}
    offsets = dict(zip(NAMES[len(TERMS) :], map(float, x[len(TERMS) :]), strict=True))
    return Coefficients(terms, offsets, report)


def predicted(x: Array, case: Case) -> Array:
    """log TPOT and log TTFT of all points, (2, N)."""
    known = coefficients(x, {})
    times = closed_loop(known.terms, known.factors(case.features), case)
    return np.asarray(np.log(np.array([times.tpot, times.ttft])), dtype=np.float64)


def derivatives(x: Array, case: Case) -> Array:
    """Of `predicted` by every coefficient, (2, N, K). An offset's is its factor's, where the feature is."""
    known, at = coefficients(x, {}), predicted(x, case)
    columns = np.empty((*at.shape, len(x)))
    for k in range(len(TERMS)):
        moved = x.copy()
        moved[k] -= NUDGE  # downwards: some terms are at their upper bound
        columns[..., k] = (at - predicted(moved, case)) / NUDGE
    k = len(TERMS)
    for factor, (_, features) in OFFSETS.items():
        times = closed_loop(known.terms, known.factors(case.features, factor, NUDGE), case)
        slope = (np.log(np.array([times.tpot, times.ttft])) - at) / NUDGE
        for feature in features:
            columns[..., k] = slope * case.features[feature]
            k += 1
    return columns


def fit(points: Points, rows: NDArray[np.bool_], steps: int = STEPS) -> Array:
    """The most probable coefficients of some of the points, from the priors on."""
    case, cells = chosen(points.case, rows), numbered(list(points.cells[rows]))
    by = (lambda x: predicted(x, case)), (lambda x: derivatives(x, case))
    return solve(PROBLEM, *by, points.observed[:, rows], cells, PROBLEM.centre, steps)


def out_of_fold(points: Points, groups: Sequence[str], steps: int = STEPS) -> Array:
    """log TPOT and log TTFT of every point from a fit without its group, (2, N)."""
    labels, answer = np.array(groups), np.empty_like(points.observed)
    for group in sorted(set(groups)):
        held = labels == group
        x = fit(points, ~held, steps)
        answer[:, held] = predicted(x, chosen(points.case, held))
    return answer


def chosen(value: Any, rows: NDArray[np.bool_]) -> Any:
    """Some of the points of a stacked case, whatever it is made of."""
    if isinstance(value, Case | Work):
        return type(value)(**{f.name: chosen(getattr(value, f.name), rows) for f in fields(value)})
    return {key: v[rows] for key, v in value.items()} if isinstance(value, dict) else value[rows]


def numbered(labels: Sequence[Any]) -> NDArray[np.int64]:
    """Labels as numbers from 0."""
    return np.asarray(np.unique(np.array(labels), return_inverse=True)[1], dtype=np.int64)


def fitted(path: Path) -> Coefficients:
    """Coefficients of all points of a file, with the errors of each point's prediction out of fold.

    Raises InputError for a file that cannot be read, and for one without a point that can be used.
    """
    rows = read_rows(path)
    found = [point for _, point in usable(rows)]
    if not found:
        raise InputError(f"{path}: no row of a model, an accelerator and an engine that are known")
    points = Points(found)
    x = fit(points, np.ones(len(points.points), dtype=np.bool_))
    unseen = out_of_fold(points, points.pairs) - points.observed
    engines = [point.engine for point in points.points]
    report = {
        "date": date.today().isoformat(),
        "source": "measured serving points of NVIDIA aiconfigurator's silicon sample (InferenceMAX), Apache-2.0",
        "points": len(points.points),
        "share_read": len(points.points) / len(rows),
        "pairs": len(set(points.pairs)),
        "in_sample": summary(predicted(x, points.case) - points.observed),
        "out_of_fold": summary(unseen),
        "out_of_fold_coverage_percent": coverage(unseen, engines, points.pairs),
        "without_the_model": _left_out(points, [point.architecture for point in points.points]),
        "without_the_accelerator": _left_out(points, [point.accelerator.name for point in points.points]),
        "intervals": intervals(unseen, engines),
        "seen": {
            "engines": sorted(set(engines)),
            "accelerators": sorted({point.accelerator.name for point in points.points}),
            "formats": sorted({point.format for point in points.points}),
        },
    }
    return coefficients(x, report)


def _left_out(points: Points, groups: Sequence[str]) -> dict[str, dict[str, float]]:
    """Errors of points that are predicted without their group."""
    return summary(out_of_fold(points, groups) - points.observed)


def write(known: Coefficients, out: Path) -> None:
    """The coefficients as data, rounded to what they mean."""
    content = {
        "terms": {name: float(f"{value:.5g}") for name, value in known.terms.items()},
        "offsets": {name: round(value, 4) for name, value in known.offsets.items()},
        "report": known.report,
    }
    with explain_os_errors(out):
        replace_text(out, json.dumps(content, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, or 2 with one line about what is wrong."""
    parser = argparse.ArgumentParser(description="fit the latency formulas on measured points")
    parser.add_argument("csv", type=Path, help="points in the format of aiconfigurator's silicon sample")
    parser.add_argument("--out", type=Path, default=FILE)
    given = parser.parse_args(arguments)
    try:
        known = fitted(given.csv)
        write(known, given.out)
    except ForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(known.report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
