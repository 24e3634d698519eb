"""Record what was measured of a deployment: kept as an outcome, and handed to the calibration for the next prediction.

    record(OutcomeStore(), model, accelerator, Serving(tp=2), Load(1024, 256, rate=2.0), ttft=0.21, tpot=0.031)

The outcome holds what was predicted then, corrections included, so that drift shows whether they still help. The
correction itself is `deployment.physics.calibration`'s: it compares with the uncorrected physics, and shrinks.
"""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployment.feedback.outcome import Outcome
from deployment.feedback.store import OutcomeStore
from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.serving import Load, Serving
from phases.errors import InputError
from phases.storage import sha256_file

if TYPE_CHECKING:
    from deployment.physics.calibration_formats import Run


def record(
    store: OutcomeStore,
    model: Model,
    accelerator: Accelerator,
    serving: Serving,
    load: Load,
    *,
    ttft: float,
    tpot: float,
    cost: float | None = None,
    price_per_hour: float | None = None,
    observed_at: datetime | None = None,
    source: str = "",
    calibration: Path | None = None,
) -> Outcome:
    """Mean seconds `ttft` and `tpot` that were observed under this load; `cost` per million output tokens.

    `price_per_hour` is one accelerator's; with it the cost is predicted. `calibration`: the file of observations,
    by default the one that `estimate` reads. Raises InputError for a price that is none and for a load that the physics
    says cannot be served, and ConfigError for figures that cannot be; nothing is kept then.
    """
    from deployment.physics.calibration import observe
    from deployment.physics.calibration_formats import Run
    from deployment.physics.calibration_store import keep

    run = Run(load, ttft, tpot, model.name)
    outcome = _outcome(run, model, accelerator, serving, cost, price_per_hour, observed_at, source, calibration)
    observation = observe(run, model, accelerator, serving)
    store.add(outcome)
    keep([observation], calibration)
    return outcome


def record_results(
    store: OutcomeStore,
    results: Path,
    model: Model,
    accelerator: Accelerator,
    serving: Serving,
    *,
    price_per_hour: float | None = None,
    calibration: Path | None = None,
    served_name: str | None = None,
) -> dict[str, Any]:
    """Every load of a load test's results as an outcome, and the correction that follows; `calibrate`'s report.

    Raises InputError as `calibrate` does, for a price that is none, and for a file that was recorded before, in this
    store or in another one that corrected the same predictions; nothing is kept then.
    """
    from deployment.physics.calibration import calibrate, observe
    from deployment.physics.calibration_formats import read_runs

    runs, now = read_runs(results, [served_name or model.name]), datetime.now(UTC)
    for run in runs:
        observe(run, model, accelerator, serving)  # refuses what this system cannot have served, and says why
    digest = sha256_file(results)
    outcomes = [
        _outcome(run, model, accelerator, serving, None, price_per_hour, now, str(results), calibration, digest)
        for run in runs
    ]
    before = store.observed_at(outcomes[0].system, digest)  # a store that cannot be used is known before it is kept
    if before is not None:
        raise InputError(
            f"{results}: it was recorded for {outcomes[0].system} on {before:%Y-%m-%d %H:%M} UTC; what was measured "
            "once is no surer twice: measure again"
        )
    report = calibrate(results, model, accelerator, serving, calibration, served_name)
    store.add(*outcomes)
    return report


def _outcome(
    run: "Run",
    model: Model,
    accelerator: Accelerator,
    serving: Serving,
    cost: float | None,
    price_per_hour: float | None,
    observed_at: datetime | None,
    source: str,
    calibration: Path | None,
    measurement: str = "",
) -> Outcome:
    """What was observed beside what is predicted now."""
    load = run.load
    return Outcome.parse(
        {
            "model": model.name,
            "accelerator": accelerator.name,
            "engine": serving.engine,
            "version": serving.version,
            "precision": serving.precision,
            "tp": serving.tp,
            "prompt_tokens": load.prompt_tokens,
            "output_tokens": load.output_tokens,
            "concurrency": load.concurrency,
            "rate": load.rate,
            **_predicted(model, accelerator, serving, load, price_per_hour, calibration),
            "observed_ttft": run.ttft,
            "observed_tpot": run.tpot,
            "observed_cost": cost,
            **({} if observed_at is None else {"observed_at": observed_at}),
            "source": source,
            "measurement": measurement,
        },
        "outcome",
    )


def _predicted(
    model: Model,
    accelerator: Accelerator,
    serving: Serving,
    load: Load,
    price_per_hour: float | None,
    calibration: Path | None,
) -> dict[str, float | int | None]:
    """What is predicted at this moment, with the corrections known so far, and how many of its own they rest on."""
    from deployment.physics.calibration_store import correction, observations
    from deployment.physics.estimate import prepare
    from deployment.physics.requests import check_load

    check_load(load, model, serving)
    known = correction(model.name, accelerator.name, serving.engine, observations(calibration))
    ready = prepare(model, accelerator, serving, load.prompt_tokens, load.output_tokens, corrected=known)
    figures = ready.at(load)
    cost = None
    if price_per_hour is not None:
        if not 0 < price_per_hour < math.inf:
            raise InputError(f"price = {price_per_hour:g}: give what one accelerator costs an hour, above 0")
        cost = serving.accelerators * price_per_hour / (figures.throughput.value * 3600) * 1e6
    predicted = {"predicted_ttft": figures.ttft.value, "predicted_tpot": figures.tpot.value, "predicted_cost": cost}
    return {**predicted, "corrected_by": int(known.tpot.points)}
