"""Nights of a project on a tiny run: a verdict, nothing new, a champion, a damaged champion, a killed night."""

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect.client.schemas.objects import State

from distillation.curation.versions import read_version
from distillation.night.forged import open_run
from distillation.project.portfolio import open_projects
from distillation.validation.gate import Verdicts
from evaluation.latency import Latency, decode_timed
from evaluation.report import read_report
from flows import night as night_steps
from flows import night_sizes
from flows.cli import main
from flows.distill_flow import distill
from flows.distill_parameters import ProjectConfig, load_project, templates
from flows.distill_report import DATABASE
from flows.parameters import ForgeConfig
from phases.checkpoint import open_checkpoint
from phases.errors import ConfigError, InputError

SETTINGS = {
    "data": {
        "run": "t",
        "questions": {"reasoning": 12, "memory": 12, "copying": 4},
        "sealed": {"reasoning": 6, "memory": 6, "copying": 2},
        "checked": {"reasoning": 6, "memory": 6, "copying": 0},
    },
    "ask": {"max_tokens": 4},
    "curation": {"quality": {"threshold": 0}},
    "distil": {"training": {"steps": 3, "batch_rows": 4, "precision": "fp32"}},
    "exam": {"max_tokens": 4, "probe_items": 3, "text_blocks": 2},
    "gate": {"resamples": 1000},
    "runner": "threads",
}
Night = Callable[..., State[Any]]


def quick_latency(path: Path, repeats: int = 1) -> Latency:
    return decode_timed(path, tokens=4, repeats=1)


@pytest.fixture
def project(copy: ForgeConfig, monkeypatch: pytest.MonkeyPatch) -> ProjectConfig:
    """A project on a copy of the finished run."""
    monkeypatch.setattr(night_sizes, "measure_beside", lambda *paths: tuple(map(quick_latency, paths)))
    return ProjectConfig.parse({**SETTINGS, "project": "p", "out": str(copy.out)}, "test")


@pytest.fixture
def good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every student is found to be good: the models here are too small to learn anything."""
    judge = night_steps.judge

    def lenient(*arguments: Any) -> Verdicts:
        return replace(judge(*arguments), decision="promote", reasons=("good",))

    monkeypatch.setattr(night_steps, "judge", lenient)
    monkeypatch.setattr(night_steps, "decide", lambda verdicts, reduction, wanted: verdicts)


def run(config: ProjectConfig) -> State[Any]:
    state: State[Any] = distill(config, return_state=True)
    if state.is_failed():
        state.result()
    return state


def champion_of(config: ProjectConfig) -> int | None:
    model = MlflowClient(f"sqlite:///{config.out.resolve()}/mlflow.db").get_registered_model(config.agent)
    number = model.aliases.get("champion")
    return None if number is None else int(number)


def stored(config: ProjectConfig) -> Path:
    """Where MLflow has the files of the first version."""
    client = MlflowClient(f"sqlite:///{config.out.resolve()}/mlflow.db")
    version = client.get_model_version(config.agent, "1")
    folder = version.source.removeprefix(f"runs:/{version.run_id}/")
    return Path(client.get_run(version.run_id).info.artifact_uri.removeprefix("file://")) / folder


def test_a_night_has_a_verdict_and_the_next_has_nothing_new(project: ProjectConfig) -> None:
    state = run(project.model_copy(update={"runner": "processes"}))
    assert state.name in ("NotEnoughData", "RolledBack")
    folder = project.folder / "night-0001"
    assert str(folder) == state.result() and (folder / "agreement.png").is_file()
    report = read_report(folder)
    (phase,) = report.phases
    assert phase.status == "rolled_back" and report.agent is None
    assert {"verdicts", "groups", "readiness", "curation", "answers", "money", "before_after"} <= set(phase.tables)
    assert {gate.name for gate in phase.gates} >= {
        "answers is kept",
        "text is kept",
        "beats the equal-budget baseline",
        "text: not worse than the baseline",
        "text beside the baseline",
    }
    assert [c.metric for c in phase.controls] == ["answers", "likelihood", "text (cost)"]
    client = MlflowClient(f"sqlite:///{project.out.resolve()}/mlflow.db")
    experiment = client.get_experiment_by_name("agent-forge")
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'p-night-0001'")
    assert "test/student/answers" in logged.data.metrics
    opened = open_projects(project.out / DATABASE).open("p")
    data = opened.night(1).data_version
    (given,) = (one.dataset for one in logged.inputs.dataset_inputs)
    _, card = read_version(project.folder / "versions" / data[:16])
    assert given.digest == data[:32] and json.loads(given.profile)["records"] == card["records"]
    nested = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{logged.info.run_id}'")
    for run_ in nested:
        curves = {name.partition("/")[0] for name in run_.data.metrics}
        assert curves == {run_.data.tags["forge.phase"]}
    assert {run_.data.tags["forge.phase"] for run_ in nested} == {"student", "baseline"}
    (student,) = opened.students()
    teacher = open_run(project.out / "t").teacher
    assert student.teachers == (opened.teacher_digest,) == (open_checkpoint(teacher).digest,)
    began = time.monotonic()
    again = run(project)
    assert again.name == "NothingNew" and time.monotonic() - began < 60
    (first, second) = opened.nights()
    assert (first.status, second.verdict, second.alpha_spent) == ("finished", "nothing new", None)
    assert second.data_version == data
    assert not (project.folder / "night-0002").exists()


@pytest.mark.usefixtures("good")
def test_a_promoted_student_that_is_damaged_is_rolled_back_and_made_anew(project: ProjectConfig) -> None:
    assert run(project).name == "Promoted" and champion_of(project) == 1
    opened = open_projects(project.out / DATABASE).open("p")
    assert opened.stage == "deployed" and opened.champion is not None
    assert read_report(project.folder / "night-0001").recommendation is not None
    assert run(project).name == "NothingNew"
    weights = stored(project) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7] + b"garbage")
    third = run(project)
    assert third.name == "RolledBack" and "the teacher" in str(third.message)
    assert champion_of(project) is None and opened.champion is None
    assert run(project).name == "Promoted" and champion_of(project) == 2
    versions = [night.data_version for night in opened.nights()]
    cards = [read_version(project.folder / "versions" / name[:16])[1] for name in versions]
    assert [card["parent"] for card in cards] == ["", "", versions[0]] and versions[0] == versions[1] != versions[2]


def test_a_killed_night_goes_on_under_its_number(project: ProjectConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def killed(*arguments: Any, **named: Any) -> Any:
            raise KeyboardInterrupt

        patch.setattr(night_steps, "sit", killed)
        with pytest.raises(KeyboardInterrupt):
            distill(project)
    student = (project.folder / "night-0001" / "student" / "forge.json").read_text()
    with sqlite3.connect(project.out / DATABASE) as database:  # killed, and on a machine that is not there any more
        database.execute("UPDATE distillation_nights SET status = 'running', host = 'a-pod-of-yesterday'")
    database.close()
    assert run(project).name in ("NotEnoughData", "RolledBack")
    (night,) = open_projects(project.out / DATABASE).open("p").nights()
    assert night.status == "finished" and night.interruptions == 2
    assert (project.folder / "night-0001" / "student" / "forge.json").read_text() == student


def test_a_budget_of_nothing_ends_before_anything_is_trained(project: ProjectConfig) -> None:
    config = project.model_copy(update={"budget": project.budget.model_copy(update={"teacher_calls": 0})})
    with pytest.raises(InputError, match="budget of 0 teacher calls"):
        run(config)  # without the teacher's answers to the sealed questions there is no test
    assert not (config.out / "mlruns").exists() and not (config.folder / "night-0001" / "student").exists()


def test_time_that_is_up_ends_a_night_and_keeps_what_it_has(project: ProjectConfig) -> None:
    assert run(project).name in ("NotEnoughData", "RolledBack")
    none = {"budget": {"seconds": 0}, "distil": {"training": {"steps": 4, "batch_rows": 4, "precision": "fp32"}}}
    again = ProjectConfig.parse({**SETTINGS, **none, "project": "p", "out": str(project.out)}, "test")
    with pytest.raises(InputError, match="before training; all is kept"):
        run(again)
    assert run(again.model_copy(update={"budget": project.budget})).name in ("NotEnoughData", "RolledBack")


@pytest.mark.parametrize("name", templates())
def test_shipped_templates(name: str) -> None:
    config = load_project(name)
    assert config.template == name and config.gate.ratio == config.goal.quality


def test_goal_is_what_the_gate_asks_for() -> None:
    assert load_project(sets=["goal.quality=0.9"]).gate.ratio == 0.9
    assert load_project(sets=["goal.quality=0.9", "gate.ratio=0.8"]).gate.ratio == 0.8


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["data.run=nothing"], "not a run of the forge"),
        (["data.run=null"], "no records to learn from"),
        (["distil.student.ratio=1.5"], "distil.student"),
        (["teachers=[{kind: local, checkpoint: /nowhere, licence: own}]"], "/nowhere"),
        (["teachers=[{kind: local, checkpoint: /nowhere, licence: unheard-of}]"], "licence"),
    ],
)
def test_bad_input_is_one_line(
    project: ProjectConfig, sets: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [part for one in ["data.run=t", *sets] for part in ("--set", one)]
    assert main(["distill", "--out", str(project.out), *options]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("forge: ")]
    assert len(told) == 1 and said in told[0]


def test_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="choose from agent, continual, cost_saver"):
        load_project("nope")


def test_projects_command(project: ProjectConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["projects", "--out", str(project.out)]) == 2
    open_projects(project.out / DATABASE).begin("p", teacher="big")
    assert main(["projects", "--out", str(project.out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["projects"][0]["name"] == "p"
    assert main(["projects", "p", "--out", str(project.out), "--archive"]) == 0
    assert "p: archived, teacher big" in capsys.readouterr().out
    assert main(["projects", "q", "--out", str(project.out)]) == 2


def test_time_is_booked_once(project: ProjectConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    night, clock = night_steps.Night(project, 1), iter([0.0, 1.0, 5.0, 7.0])
    monkeypatch.setattr(night_steps.time, "monotonic", lambda: next(clock))
    with night._timed("training"), night._timed("labelling"):
        pass
    assert night.seconds == {"labelling": 4.0, "training": 3.0}
