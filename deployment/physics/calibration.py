"""`calibrate`: results of a load test correct the predictions for that system, and a little for its neighbours.

    report = calibrate(Path("results.json"), model, accelerator, Serving(tp=2))

What is kept are ratios to the uncorrected physics (`calibration_store.py`), so that they do not depend on the
corrections before them. A file counts once for a system, wherever its outcomes are kept: twice it would only look
surer. Formats: `calibration_formats.py`.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.calibration_formats import Run, read_runs
from deployment.physics.calibration_store import Correction, Factor, Observation, correction, file, keep, observations
from deployment.physics.estimate import prepare
from deployment.serving import Serving
from phases.errors import InputError
from phases.storage import sha256_file


def calibrate(
    results: Path,
    model: Model,
    accelerator: Accelerator,
    serving: Serving,
    path: Path | None = None,
    served_name: str | None = None,
) -> dict[str, Any]:
    """Observe every load of a file and keep it. The report has the errors before and after, in percent.

    `served_name`: what the server calls the model; None: as it is called. Raises InputError for a file that cannot be
    read, measured another model or is kept already, and for loads that this system cannot have served.
    """
    runs = read_runs(results, [served_name or model.name])
    path = path or file()
    before = correction(model.name, accelerator.name, serving.engine, observations(path))
    digest = sha256_file(results)
    new = [replace(observe(run, model, accelerator, serving), measurement=digest) for run in runs]
    keep(new, path)
    after = correction(model.name, accelerator.name, serving.engine, observations(path))
    return {
        "system": new[0].system,
        "loads": len(new),
        "kept in": str(path),
        "ttft": _told("ttft", new, before, after),
        "tpot": _told("tpot", new, before, after),
    }


def observe(run: Run, model: Model, accelerator: Accelerator, serving: Serving) -> Observation:
    """One measured load as log measured / predicted. Raises InputError where nothing finite is predicted."""
    ready = prepare(model, accelerator, serving, run.load.prompt_tokens, run.load.output_tokens, corrected=Correction())
    predicted = ready.at(run.load)
    if not math.isfinite(predicted.ttft.value):
        raise InputError(
            f"{run.load.rate:g} requests/s overload {model.name} on {accelerator.name} by the physics: "
            "check the model, the accelerator and tp, or measure below saturation"
        )
    return Observation(
        model.name,
        accelerator.name,
        serving.engine,
        ttft=math.log(run.ttft / predicted.ttft.value),
        tpot=math.log(run.tpot / predicted.tpot.value),
    )


def _told(figure: str, new: list[Observation], before: Correction, after: Correction) -> dict[str, float]:
    factor: Factor = getattr(after, figure)
    return {
        "factor": round(factor.factor, 4),
        "interval_left": round(factor.left, 4),
        "error_before_percent": _error(figure, new, getattr(before, figure).factor),
        "error_after_percent": _error(figure, new, factor.factor),
    }


def _error(figure: str, new: list[Observation], factor: float) -> float:
    """Mean absolute percentage error of the loads with this factor."""
    errors = [abs(factor / math.exp(getattr(entry, figure)) - 1) for entry in new]
    return round(100 * sum(errors) / len(errors), 2)
