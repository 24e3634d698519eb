"""`validate`: how well the shipped coefficients predict any file of measured points. No refit, no correction.

    forge models validate FILE.csv --json

The file has the format of aiconfigurator's silicon sample (`validation_rows.py`). Errors on points that the fit has
seen are smaller than on others; `report.out_of_fold` of `coefficients.json` is what to expect of a new system.
"""

from pathlib import Path
from statistics import fmean, median
from typing import Any

from deployment.physics.coefficients import Coefficients, shipped
from deployment.physics.decode import floor_seconds
from deployment.physics.intervals import Spread, bounds, spread
from deployment.physics.latency import closed_loop
from deployment.physics.validation_rows import Measured, read_rows, usable
from phases.errors import InputError


def validate(path: Path | str, known: Coefficients | None = None) -> dict[str, Any]:
    """Mean and median absolute percentage error of TPOT and TTFT, coverage of the intervals, share of rows predicted.

    Raises InputError for a file that cannot be read or of which no row can be predicted.
    """
    path, known = Path(path), known or shipped()
    rows = read_rows(path)
    points = [point for _, point in usable(rows)]
    if not points:
        raise InputError(f"{path}: of none of its {len(rows)} rows model, system and load are known")
    judged = [judge(point, known) for point in points]
    return {
        "rows": len(rows),
        "predicted": len(points),
        "coverage_percent": round(100 * len(points) / len(rows), 2),
        "tpot": _summary([entry["tpot"] for entry in judged]),
        "ttft": _summary([entry["ttft"] for entry in judged]),
        "by_engine": _by_engine(points, judged),
        "fit": {name: known.report[name] for name in ("date", "points", "pairs", "out_of_fold")},
    }


def judge(point: Measured, known: Coefficients) -> dict[str, tuple[float, bool]]:
    """TTFT's and TPOT's absolute percentage error, and whether the measured one lies in the 80 % interval."""
    times = closed_loop(known.terms, known.factors(point.case.features), point.case)
    floor = floor_seconds(point.case.decode, times.batch)
    spreads, _ = spread(known, point.model, point.accelerator, point.serving)
    return {
        "ttft": _judged(times.ttft, point.ttft, spreads[0], 0.0),
        "tpot": _judged(times.tpot, point.tpot, spreads[1], floor),
    }


def _judged(predicted: float, measured: float, about: Spread, floor: float) -> tuple[float, bool]:
    low, high = bounds(about)
    inside = max(floor, predicted * low) <= measured <= max(floor, predicted * high)
    return 100 * abs(max(floor, predicted) / measured - 1), inside


def _summary(judged: list[tuple[float, bool]]) -> dict[str, float]:
    errors = [error for error, _ in judged]
    return {
        "mean_ape": round(fmean(errors), 2),
        "median_ape": round(median(errors), 2),
        "interval_coverage_percent": round(100 * fmean(inside for _, inside in judged), 2),
    }


def _by_engine(points: list[Measured], judged: list[dict[str, tuple[float, bool]]]) -> dict[str, dict[str, Any]]:
    """The same for every engine and mode, so that a weak spot does not hide in the mean."""
    groups: dict[str, list[dict[str, tuple[float, bool]]]] = {}
    for point, entry in zip(points, judged, strict=True):
        groups.setdefault(f"{point.engine} {point.mode}", []).append(entry)
    return {
        name: {"points": len(group)}
        | {figure: _summary([entry[figure] for entry in group]) for figure in ("tpot", "ttft")}
        for name, group in sorted(groups.items())
    }
