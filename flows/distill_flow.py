"""The flow `distill`: one night of a project, from its data to a promoted student, or to none.

    forge distill                                            # no server needed
    prefect deployment run distill/distill-nightly

The night ends in a state that says what became of it: Promoted, Ready (passed, not promoted by itself), RolledBack,
NotEnoughData; or NothingNew, within seconds, when neither data, teachers, settings nor code have changed.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from distillation.night.faculty import Faculty
from distillation.night.schooling import Plan, Schooled
from distillation.night.workshop import VERSIONS
from distillation.project.night import Night as OpenNight
from distillation.project.portfolio import open_projects
from distillation.project.project import Project
from distillation.training.baseline import NAME as BASELINE
from distillation.training.distil import Distilled
from evaluation.render import render_markdown
from evaluation.report import Report, write_report
from flows.aftermath import end_tracking
from flows.console import say
from flows.distill_parameters import ProjectConfig
from flows.distill_report import DATABASE, night_pictures, night_report, summary_rows
from flows.forge_flow import origin
from flows.night import Examined, Night, spending_of
from flows.recommend_flow import recommend_task
from flows.run_directory import locked
from flows.students import champion_before, check_champion, identities, register_student, settle
from flows.tracking import Tracker, track
from phases.errors import ForgeError

NOTHING_NEW = "nothing new"


@flow(name="distill", persist_result=False, on_crashed=[end_tracking], on_cancellation=[end_tracking])
def distill(config: ProjectConfig) -> State[Any]:
    """One night; the result is its folder.

    Args:
        config: Everything the project is told. The defaults learn from the model of the run `laptop`.
    """
    with locked(config.folder):
        project = open_projects(config.out / DATABASE).begin(config.project, teacher=_named(config))
        rolled = check_champion(config, project)
        if rolled is not None:
            create_markdown_artifact(rolled, key="verdict", description=f"Project {config.project}")
            return Completed(name="RolledBack", message=rolled, data=str(config.folder))
        # The folder's lock is ours, so whoever began a night is gone, even on another machine: pods have new names.
        with project.begin_night(take_over=True) as opened:
            return _night(config, project, opened)


def _night(config: ProjectConfig, project: Project, opened: OpenNight) -> State[Any]:
    night = Night(config, opened.number)
    say(f"distill: night {opened.number} of {config.project}" + (", taken up again" if opened.resumed else ""))
    plan = data_task(night, project, config.out)
    faculty = night.faculty(plan)
    project.identify_teacher(identities(faculty)[0])
    fingerprint, last = night.fingerprint(plan, faculty), night.workshop.last()
    if last.get("fingerprint") == fingerprint and _finished(project, last["night"]):
        opened.finish(verdict=NOTHING_NEW, data_version=plan.parent)
        message = f"nothing new since night {last['night']}, which ended in: {last['decision']}"
        say(f"distill: {message}")
        return Completed(name="NothingNew", message=message, data=str(night.workshop.project))
    name = f"{config.project}-night-{opened.number:04d}"
    with track(config.out, name, project.night(opened.number).started_at) as tracker:
        tracker.begin(config.model_dump(mode="json"), {"forge.project": config.project, **origin()})
        return _taught(config, project, opened, night, plan, faculty, fingerprint, tracker)


def _taught(
    config: ProjectConfig,
    project: Project,
    opened: OpenNight,
    night: Night,
    plan: Plan,
    faculty: Faculty,
    fingerprint: str,
    tracker: Tracker,
) -> State[Any]:
    project.move("distilling", f"night {opened.number}")
    before = champion_before(project, opened.number)
    champion = "" if before is None else before.path
    schooled = answers_task(night, plan, faculty, champion)
    made = train_task(night, plan, faculty, schooled, champion, tracker)
    project.move("validating", f"night {opened.number}")
    examined = exam_task(night, plan, faculty, schooled, made, project)
    report = report_task(config, project, night, plan, faculty, schooled, made, examined, tracker)
    version = register_student(config, night, schooled, made, examined, tracker)
    state = settle(config, project, opened, night, faculty, schooled, made, examined, version, fingerprint)
    if report.agent is not None and config.plan.enabled:
        plan_task(config, night, report, tracker)
    return state


@task(name="data", task_run_name="data", cache_policy=NO_CACHE, persist_result=False)
def data_task(night: Night, project: Project, out: Path) -> Plan:
    """Gather and curate the questions; seal the test."""
    number = night.workshop.number
    began = datetime.fromisoformat(project.night(number).started_at)
    plan = night.schooling.plan(out, project.data_before(number), began)
    say(f"distill: {len(plan.questions.records):,} questions, {len(plan.sealed):,} sealed")
    for reason, count in plan.gathered.rejected.items():
        say(f"distill: {count:,} rows set aside: {reason}")
    return plan


@task(name="answers", task_run_name="answers", cache_policy=NO_CACHE, persist_result=False)
def answers_task(night: Night, plan: Plan, faculty: Faculty, champion: str) -> Schooled:
    """Ask the teachers what is missing; curate what they said."""
    return night.school(plan, faculty, champion)


@task(name="train", task_run_name="train", cache_policy=NO_CACHE, persist_result=False)
def train_task(
    night: Night, plan: Plan, faculty: Faculty, schooled: Schooled, champion: str, tracker: Tracker
) -> Distilled:
    """The student, and the baseline at equal budget: a nested run each, of the same data."""
    card, key = schooled.card, schooled.version
    folder = night.workshop.project / VERSIONS / key[:16]
    tracker.input("distillation-data", key, folder, {"records": card["records"], "tokens": card["tokens"]})
    with tracker.phase("student", key) as student, tracker.phase(BASELINE, key) as baseline:

        def metrics(step: int, values: Mapping[str, float]) -> None:
            theirs = {name: value for name, value in values.items() if name.startswith(f"{BASELINE}/")}
            baseline.metrics(step, theirs)
            student.metrics(step, {name: value for name, value in values.items() if name not in theirs})

        return night.learn(plan, faculty, schooled, champion, metrics)


@task(name="exam", task_run_name="exam", cache_policy=NO_CACHE, persist_result=False)
def exam_task(
    night: Night, plan: Plan, faculty: Faculty, schooled: Schooled, made: Distilled, project: Project
) -> Examined:
    """Student, baseline and teacher on the sealed questions; verdicts; money."""
    return night.examine(plan, faculty, schooled, made, spending_of(project, night.config))


@task(name="night report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report_task(
    config: ProjectConfig,
    project: Project,
    night: Night,
    plan: Plan,
    faculty: Faculty,
    schooled: Schooled,
    made: Distilled,
    examined: Examined,
    tracker: Tracker,
) -> Report:
    """`report.json`, `report.md` and pictures, shown in both UIs."""
    started = project.night(night.workshop.number).started_at
    report = night_report(config, started, night, plan, faculty, schooled, made, examined)
    folder = night.workshop.night
    write_report(folder, report)
    pictures = night_pictures(schooled, examined, faculty)
    for name, figure in pictures.items():
        figure.savefig(folder / name, dpi=120)
    markdown = render_markdown(report)
    tracker.report(markdown)
    metrics = {f"{m.split}/{m.name}": m.value for phase in report.phases for m in phase.metrics}
    tracker.parent.metrics(0, metrics)
    tracker.parent.write(
        lambda client, run_id: [client.log_artifact(run_id, str(folder / name)) for name in sorted(pictures)]
    )
    create_table_artifact(summary_rows(examined), key="verdicts", description=f"Criteria of {config.project}")
    create_markdown_artifact(markdown, key="report", description=f"Night {night.workshop.number} of {config.project}")
    if tracker.link:
        create_link_artifact(tracker.link, key="mlflow", description="The night in MLflow")
    return report


@task(name="plan", task_run_name="plan", cache_policy=NO_CACHE, persist_result=False)
def plan_task(config: ProjectConfig, night: Night, report: Report, tracker: Tracker) -> None:
    """What to rent for the student; no plan costs the night nothing."""
    folder = night.workshop.night
    try:
        planned = recommend_task.fn(config.plan.request, folder / "plan", folder, tracker)
        write_report(folder, report.model_copy(update={"recommendation": planned.summary}))
    except ForgeError as error:
        say(f"recommend: {error}")


def _named(config: ProjectConfig) -> str:
    if not config.teachers:
        return f"model of {config.data.run}"
    return ", ".join(t.name or getattr(t, "model", "") or str(getattr(t, "checkpoint", "")) for t in config.teachers)


def _finished(project: Project, number: int) -> bool:
    """A night that says it has ended has: its file is written before the database."""
    return any(night.number == number and night.status == "finished" for night in project.nights())
