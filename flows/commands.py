"""What each command does: thin over the functions that the flow calls too. Each returns the exit code."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.chain import summaries
from phases.errors import ConfigError, GateFailed, InputError

if TYPE_CHECKING:
    from evaluation.judgement import Judgement
    from evaluation.report import Report
    from flows.gating import Outcome
    from flows.parameters import ForgeConfig
    from phases.checkpoint import Checkpoint
    from phases.dataset import Dataset


def run(arguments: argparse.Namespace) -> int:
    """The chain as a flow; its report and how to look closer."""
    from evaluation.report import read_report
    from flows.forge_flow import forge
    from flows.run_directory import check_folder
    from flows.serverless import run_flow

    config = _config(arguments)
    check_folder(config)  # before Prefect takes seconds to start
    failed = run_flow(lambda: forge(config))
    report = read_report(config.folder)
    _print_report(report, arguments.json)
    if not arguments.json:
        print(f"\nreport: {config.folder / 'report.md'}\n{_interfaces(config.out)}")
    if failed is not None:
        raise failed
    return 0


def phase(arguments: argparse.Namespace) -> int:
    """One phase without MLflow, judged like in a run; in several processes when `accelerate launch` started us."""
    from flows.gating import judge, settle
    from flows.standalone import make, open_stage
    from flows.summary import announce
    from phases.training.processes import StoppedByMain, is_main, joined, on_main

    with contextlib.ExitStack() as held:
        try:
            with joined():
                config = on_main(lambda: _config(arguments))
                data = partial(_prepared, arguments, config)
                stage = on_main(lambda: open_stage(arguments.name, arguments.input, config, arguments.out, data, held))
                made = make(stage, config.runner)
        except StoppedByMain as stopped:
            return stopped.exit_code
        if not is_main():
            return 0
        outcome = settle(stage, made, judge(stage, made, config.evaluation))
    announce(outcome)
    _print_outcome(outcome, arguments.json)
    return 0 if outcome.judgement.passed else GateFailed.exit_code


def evaluate(arguments: argparse.Namespace) -> int:
    """Our metrics of a checkpoint, or those of lm-eval tasks."""
    from evaluation.harness import run_tasks
    from evaluation.judgement import Judgement
    from evaluation.measured import evaluate_checkpoint
    from phases.checkpoint import open_checkpoint

    checkpoint, config = open_checkpoint(arguments.checkpoint), _config(arguments)
    if arguments.tasks is None:
        judgement = evaluate_checkpoint(checkpoint, _found(arguments), config.evaluation, thoughts=arguments.thoughts)
    else:
        import tempfile

        names = [name.strip() for name in arguments.tasks.split(",") if name.strip()]
        data = _found(arguments, required=False)
        with tempfile.TemporaryDirectory() as folder:
            settings = config.evaluation
            metrics = run_tasks(
                checkpoint,
                names,
                Path(folder),
                data,
                settings.split,
                settings.batch,
                settings.items,
                arguments.thoughts,
                settings.seed,
            )
        judgement = Judgement(metrics=tuple(metrics))
    _print_judgement(judgement, checkpoint, arguments)
    return 0


def report(arguments: argparse.Namespace) -> int:
    """The report of a finished run."""
    from evaluation.report import FILE, read_report

    named = Path("checkpoints") / arguments.run
    folder = named if not (arguments.run / FILE).is_file() and (named / FILE).is_file() else arguments.run
    _print_report(read_report(folder), arguments.json)
    return 0


def phases(arguments: argparse.Namespace) -> int:
    """Every phase with one line."""
    lines = summaries()
    if arguments.json:
        _print_json(lines)
    else:
        for number, (name, summary) in enumerate(lines.items(), 1):
            print(f"{number}  {name:<12} {summary}")
    return 0


def up(arguments: argparse.Namespace) -> int:
    """Servers and a worker until Ctrl-C."""
    from flows.notifications import URL_VARIABLE, check_address
    from flows.site import Site
    from flows.up import start

    webhook = arguments.notify or os.environ.get(URL_VARIABLE)
    if webhook:
        check_address(webhook)  # before servers take their time to start
    start(Site(arguments.port, arguments.mlflow_port), webhook)
    return 0


def _config(arguments: argparse.Namespace) -> "ForgeConfig":
    from flows.parameters import load_config

    settings = [*_alone(arguments), *arguments.set]
    config = load_config(arguments.profile, arguments.config, settings)
    out = getattr(arguments, "out", None)
    return config.model_copy(update={"out": out}) if out and arguments.command == "run" else config


def _alone(arguments: argparse.Namespace) -> list[str]:
    """Settings of `--codec`: it carries everything, and further ratios are tried, as few codecs reach the first."""
    codec = getattr(arguments, "codec", None)
    if codec is None:
        return []
    if arguments.name != "compression":
        raise ConfigError(f"--codec belongs to `forge phase compression`; leave it out of {arguments.name}")
    return [
        f"compression.codecs.names=[{codec}]",
        "compression.codecs.seed_ratio=1",
        "compression.ratios=[20, 16, 12, 10, 8, 7, 6, 4]",
    ]


def _prepared(arguments: argparse.Namespace, config: "ForgeConfig") -> "Dataset":
    """The data that was named or is found near the inputs; else it is prepared at `<out>.data`."""
    from phases.data.prepare import prepare_data

    found = None if arguments.data is None and not arguments.input else _found(arguments, required=False)
    out: Path = arguments.out
    return found or prepare_data(config.data, config.cognate.base, out.with_name(f"{out.name}.data"))


def _found(arguments: argparse.Namespace, required: bool = True) -> Any:
    """The data named with --data, or that of the run which a checkpoint lies in; None when not `required`."""
    from phases.dataset import CARD, open_dataset

    if arguments.data is not None:
        return open_dataset(arguments.data)
    start = [arguments.checkpoint] if "checkpoint" in arguments else arguments.input
    for folder in _near(start):
        if (folder / CARD).is_file():
            return open_dataset(folder)
    if not required:
        return None
    raise InputError(f"{start[0]}: no prepared data beside it; give --data DIR (a run's folder has it as data/)")


def _near(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        for parent in path.resolve().parents[:4]:
            yield parent / "data"
        yield path.with_name(f"{path.name}.data")


def _print_report(report: "Report", as_json: bool) -> None:
    from evaluation.render import render_table

    if as_json:
        _print_json(report.model_dump(mode="json"))
    else:
        print(render_table(report))


def _print_outcome(outcome: "Outcome", as_json: bool) -> None:
    from evaluation.render import text_table
    from flows.summary import gate_rows

    if as_json:
        made = {"path": str(outcome.made.path), "digest": outcome.made.digest}
        _print_json({**outcome.judgement.model_dump(mode="json"), "status": outcome.status, "checkpoint": made})
        return
    columns = ("gate", "value", "comparison", "threshold", "verdict")
    rows = [[_cell(row[name]) for name in columns] for row in gate_rows(outcome.judgement)]
    print(text_table(columns, rows))
    print(f"\ncheckpoint: {outcome.made.path}")


def _print_judgement(judgement: "Judgement", checkpoint: "Checkpoint", arguments: argparse.Namespace) -> None:
    from evaluation.render import table_text, text_table, with_error

    if arguments.json:
        measured = {"checkpoint": checkpoint.digest, "thoughts": arguments.thoughts}
        _print_json({**measured, **judgement.model_dump(mode="json")})
        return
    rows = [(m.name, with_error(m.value, m.stderr), f"{m.n:,}", m.unit) for m in judgement.metrics]
    print(text_table(("metric", "value", "n", "unit"), rows))
    for table in judgement.tables.values():
        print("\n" + text_table(*table_text(table)))


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _interfaces(out: Path) -> str:
    """The two commands that open the UIs, as they are typed here."""
    from flows.tracking import tracking_uri

    scripts = Path(sys.executable).parent
    here = scripts.relative_to(Path.cwd()) if scripts.is_relative_to(Path.cwd()) else scripts
    return (
        f"runs and tasks:       {here}/prefect server start   then http://127.0.0.1:4200\n"
        f"metrics and pictures: {here}/mlflow ui --backend-store-uri {tracking_uri(out)}   then http://127.0.0.1:5000"
    )
