"""`forge distill` and `forge projects`: one night of a distillation project, and all projects on one page.

forge distill                                          # the template cost_saver, on the run `laptop`
forge distill --template continual --set project=support --set data.run=null
forge projects
forge projects support --archive
"""

import argparse
import json
from pathlib import Path
from typing import Any

from phases.errors import GateFailed, InputError


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Options of `forge distill`."""
    source = command.add_mutually_exclusive_group()
    source.add_argument("--template", help="a shipped template (default: cost_saver); `--template list` lists them")
    source.add_argument("--config", type=Path, metavar="FILE", help="your own YAML file instead")
    command.add_argument("--teacher", type=Path, metavar="CKPT", help="the teacher, instead of the run's own model")
    text = "one setting, e.g. distil.student.ratio=0.4"
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    command.add_argument("--out", type=Path, help="folder of all runs and projects (default: checkpoints)")


def add_project_arguments(command: argparse.ArgumentParser) -> None:
    """Options of `forge projects`."""
    command.add_argument("name", nargs="?", help="show one project with its nights, champions and steps")
    command.add_argument("--out", type=Path, default=Path("checkpoints"), help="folder of all runs and projects")
    command.add_argument("--archive", action="store_true", help="keep its reports in a file, and have no more nights")


def distill(arguments: argparse.Namespace) -> int:
    """One night. Exit code 1 when its student was rolled back or is not shown to be good enough."""
    from flows.distill_parameters import load_project, templates

    if arguments.template == "list":
        print("\n".join(_described(name, path) for name, path in templates().items()))
        return 0
    config = load_project(arguments.template, arguments.config, [*_teacher(arguments.teacher), *arguments.set])
    if arguments.out:
        config = config.model_copy(update={"out": arguments.out})
    from flows.distill_flow import distill as flow
    from flows.serverless import run_flow

    ended: list[Any] = []
    failed = run_flow(lambda: ended.append(flow(config, return_state=True)))
    if failed is not None:
        raise failed
    state = ended[0]
    if state.is_failed() or state.is_crashed():
        state.result()  # raises what stopped it
    return _told(state, config, arguments.json)


def _told(state: Any, config: Any, as_json: bool) -> int:
    """The outcome; 1 where a student was made and is not good enough."""
    from evaluation.render import render_table
    from evaluation.report import FILE, read_report

    folder = Path(state.result())
    good = state.name in ("Promoted", "Ready", "NothingNew")
    report = read_report(folder) if (folder / FILE).is_file() else None
    if as_json:
        told = {"project": config.project, "outcome": state.name, "reason": state.message, "folder": str(folder)}
        print(json.dumps(told | {"report": None if report is None else report.model_dump(mode="json")}, indent=2))
    else:
        if report is not None:
            print(render_table(report))
        print(f"{state.name}: {state.message}")
        if report is not None:
            print(f"report: {folder / 'report.md'}")
    return 0 if good else GateFailed.exit_code


def projects(arguments: argparse.Namespace) -> int:
    """All projects, or one in full."""
    from distillation.project.archive import archive
    from distillation.project.portfolio import open_projects
    from flows.distill_report import DATABASE

    path = arguments.out / DATABASE
    if not path.is_file():
        raise InputError(f"{path}: there are no projects yet; `forge distill` begins one")
    found = open_projects(path)
    if arguments.name is None:
        if arguments.archive:
            raise InputError("--archive: say which project")
        portfolio = found.portfolio()
        print(json.dumps(portfolio.as_json(), indent=2) if arguments.json else _portfolio_text(portfolio))
        return 0
    project = found.open(arguments.name)
    if arguments.archive:
        archive(project, arguments.out / project.name, "by hand")
    shown = _project_data(project)
    print(json.dumps(shown, indent=2) if arguments.json else _project_text(shown))
    return 0


def _portfolio_text(portfolio: Any) -> str:
    from evaluation.render import text_table

    columns = (
        "project",
        "stage",
        "teacher",
        "champion",
        "kept",
        "saves USD/month",
        "invested USD",
        "pays back",
        "last",
    )
    rows = [
        (
            row.name,
            row.stage,
            row.teacher,
            "none" if row.champion is None else row.champion[:12],
            _number(row.retention, ".3f"),
            _number(row.saved_usd_per_month, ",.2f"),
            _number(row.invested_usd, ",.2f"),
            "unknown" if row.break_even_day is None else f"day {row.break_even_day:.0f}",
            "none" if row.last_night is None else f"{row.last_night}: {row.last_verdict or row.last_status}",
        )
        for row in portfolio.rows
    ]
    totals = portfolio.totals
    told = [
        f"{totals.champions} of {totals.projects} projects have a champion",
        f"${totals.saved_usd_per_month:,.2f} saved a month ({totals.saved_unknown} not known)",
        f"${totals.invested_usd:,.2f} invested ({totals.invested_unknown} not known)",
    ]
    return f"{text_table(columns, rows)}\n\n{'; '.join(told)}"


def _project_data(project: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": project.name,
        "stage": project.stage,
        "teacher": project.teacher,
        "teacher_digest": project.teacher_digest,
        "nights": [asdict(night) for night in project.nights()],
        "lineage": [asdict(student) for student in project.lineage()],
        "steps": [asdict(move) for move in project.history()],
    }


def _project_text(shown: dict[str, Any]) -> str:
    from evaluation.render import text_table

    nights = [
        (n["number"], n["status"], n["verdict"] or n["reason"], _number(n["alpha_spent"], ".4f"), n["started_at"])
        for n in shown["nights"]
    ]
    line = [(s["night"], s["digest"][:12], _number(s["retention"], ".3f"), s["path"]) for s in shown["lineage"]]
    parts = [f"{shown['name']}: {shown['stage']}, teacher {shown['teacher']}"]
    parts.append(text_table(("night", "status", "verdict", "alpha spent", "started"), nights))
    if line:
        parts.append(f"champions\n{text_table(('night', 'student', 'kept', 'checkpoint'), line)}")
    steps = [(m["at"], m["before"], m["after"], m["reason"][:90]) for m in shown["steps"]]
    parts.append(f"steps\n{text_table(('when', 'from', 'to', 'why'), steps)}")
    return "\n\n".join(parts)


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _described(name: str, path: Path) -> str:
    """A template's first comment."""
    lines = [line.lstrip("# ").rstrip() for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    return f"{name:<20} {' '.join(lines).split('. ')[0].rstrip('.')}"


def _teacher(path: Path | None) -> list[str]:
    return [] if path is None else [f"teachers=[{{kind: local, checkpoint: {json.dumps(str(path))}, licence: own}}]"]
