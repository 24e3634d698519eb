"""`forge calibrate`: what a load test measured corrects the next predictions. `forge outcomes`: predicted and observed.

    forge calibrate results.json --model Qwen/Qwen3-8B --accelerator l40s
    forge outcomes                                                  # is anything drifting away?
    forge outcomes --list --store postgresql+psycopg://user@host/plans

Results are GuideLLM's or those of `vllm bench serve`; outcomes lie in `checkpoints/outcomes.sqlite` or where `--store`
says, corrections in `checkpoints/calibration.json`.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phases.errors import InputError

FIGURES = ("ttft", "tpot")


def add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `forge calibrate`."""
    add = parser.add_argument
    add("results", type=Path, metavar="FILE", help="what GuideLLM or `vllm bench serve` wrote")
    add("--model", required=True, metavar="NAME", help="of the atlas")
    add("--accelerator", "--gpu", required=True, metavar="NAME", help="that it ran on")
    add("--served-name", metavar="NAME", help="what the server calls the model (default: as the atlas does)")
    add("--engine", default="vllm", choices=("vllm", "sglang", "trtllm", "tgi", "llama.cpp"), help="(default: vllm)")
    add("--engine-version", default="", metavar="V", help="of the engine (default: the newest that is known)")
    add("--precision", default="stored", metavar="NAME", help="of the weights (default: as published)")
    add("--tp", type=int, default=1, metavar="N", help="tensor parallelism (default: 1)")
    add("--price", type=float, metavar="USD", help="of one accelerator and hour; cost is predicted then, too")
    _add_store(parser)


def add_outcome_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `forge outcomes`."""
    parser.add_argument("--list", action="store_true", help="every outcome, instead of what drifts")
    parser.add_argument("--system", metavar="NAME", help="only of this one, e.g. `Qwen/Qwen3-8B on l40s (vllm)`")
    _add_store(parser)


def _add_store(parser: argparse.ArgumentParser) -> None:
    text = "file or URL of the outcomes (default: checkpoints/outcomes.sqlite)"
    parser.add_argument("--store", metavar="URL", help=text)


def calibrate(arguments: argparse.Namespace) -> int:
    """Keep the outcomes, correct the system, say by how much."""
    from deployment import Serving, accelerator, find_model
    from deployment.counting import counted
    from deployment.feedback.recording import record_results
    from deployment.feedback.store import OutcomeStore

    serving = Serving(
        engine=arguments.engine,
        version=arguments.engine_version,
        precision=arguments.precision,
        tp=arguments.tp,
    )
    store = OutcomeStore(arguments.store)
    model, place = find_model(arguments.model), accelerator(arguments.accelerator)
    report = record_results(
        store,
        arguments.results,
        model,
        place,
        serving,
        price_per_hour=arguments.price,
        served_name=arguments.served_name,
    )
    store.close()
    if arguments.json:
        print(json.dumps(report, indent=2))
        return 0
    print(f"{report['system']}: {counted(report['loads'], 'load')}, kept in {report['kept in']}")
    for figure in FIGURES:
        told: dict[str, Any] = report[figure]
        print(
            f"{figure.upper()}: predictions × {told['factor']:.3f}, {told['interval_left']:.0%} of the interval left; "
            f"error on these loads {told['error_before_percent']:.1f} % → {told['error_after_percent']:.1f} %"
        )
    return 0


def outcomes(arguments: argparse.Namespace) -> int:
    """Predicted beside observed, what has changed, and what to do about it."""
    from deployment.feedback.drift import NONE_YET, drift, drift_text
    from deployment.feedback.store import OutcomeStore
    from deployment.physics.calibration_store import observations
    from phases.database_errors import shown

    store = OutcomeStore(arguments.store)
    if arguments.store is not None and not store.exists:
        raise InputError(f"{shown(store.url)}: no outcomes are kept there; `forge calibrate --store` keeps them")
    found = store.read(arguments.system)
    store.close()
    if arguments.list:
        rows = [{"system": one.system, **one.model_dump(mode="json")} for one in found]
        if arguments.json:
            print(json.dumps(rows, indent=2))
        elif rows:
            print("\n".join(json.dumps(row) for row in rows))
        else:
            print(NONE_YET, file=sys.stderr)  # stdout has one outcome a line, for other programs
    elif arguments.json:
        off = [asdict(one) | {"biased": one.biased} for one in drift(found, observations())]
        print(json.dumps(off, indent=2, default=str))
    else:
        print(drift_text(drift(found, observations())))
    return 0
