"""The flow: data, then every phase of the chain with its gate, then the report.

    forge run                                                # no server needed
    PREFECT_API_URL=http://127.0.0.1:4200/api forge run

Tasks resolve inputs, call a pure function and log; they hand on references, never models. Phases are cached twice: by
the files beside each checkpoint (`flows.stage`), on which correctness rests, and by Prefect, which shows them as
Cached. A failed gate stops the chain, rolls back to the parent, or is followed by one retry with the next seed.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from deployment.atlas import own
from evaluation.config import EvaluationConfig
from evaluation.render import render_markdown
from evaluation.report import Agent, Report, write_report
from evaluation.size_plot import size_plot
from flows.aftermath import end_tracking
from flows.approval import check_approval, decide
from flows.chain import find_phase
from flows.console import duration, say
from flows.gating import Outcome, judge, settle
from flows.notifications import announce_failed_gate
from flows.parameters import ForgeConfig, Runner
from flows.pools import with_pool
from flows.progress import Progress
from flows.promotion import promote_task, register_task
from flows.recommend_flow import recommend_task
from flows.registry import Version
from flows.reuse import borrow
from flows.run_directory import open_run, started
from flows.shipping import ship
from flows.stage import CheckpointRef, Stage, reference
from flows.states import gate_state, run_state
from flows.summary import announce, approval_text, failed_gates, gate_rows, measure_agent, summarise
from flows.tracking import Tracker, track
from phases.checkpoint import Checkpoint, open_checkpoint
from phases.data.prepare import prepare_data
from phases.dataset import Dataset, open_dataset
from phases.errors import ForgeError, GateFailed
from phases.phase import MetricsCallback


@flow(name="forge", persist_result=False, on_crashed=[end_tracking], on_cancellation=[end_tracking])
def forge(config: ForgeConfig) -> State[Any]:
    """Make an agent; the result is the run's folder.

    Args:
        config: Everything the run is told. The defaults run offline on two cores.
    """
    check_approval(config.approval)
    config = config.on(flow_run.get_scheduled_start_time().date())
    try:
        outcomes, version = make_agent(config)
    except GateFailed as error:
        return Failed(name="GateFailed", message=str(error), data=error)
    agent = outcomes[-1].kept
    assert agent is not None  # else a gate had failed
    # Nothing is held here any more: the run may be suspended for days.
    approval = decide(config.approval, config.folder, agent.digest, approval_text(config, outcomes))
    if version is not None:
        promote_task(config.out, version, approval)
    return run_state(config.folder, outcomes, approval)


def make_agent(config: ForgeConfig) -> tuple[list[Outcome], Version | None]:
    """Data, chain, report, registration. Raises `GateFailed` when the chain ends without an agent."""
    with open_run(config) as folder, track(config.out, config.run, started(folder)) as tracker:
        began, progress = time.monotonic(), Progress(len(config.chain) + 2)
        tracker.begin(config.model_dump(mode="json"), origin())
        data = open_dataset(prepare_data_task(config, folder / "data"))
        tracker.data(data)
        progress.advance()
        outcomes = run_chain(config, folder, data, tracker, progress)
        report = report_task(config, folder, began, data, outcomes, tracker)
        agent = ship(outcomes[-1].kept, folder, report)
        if agent is not None:
            say(f"agent: {agent}")
        version = register_task(config, data, outcomes, tracker)
        progress.advance()
        stop_if_failed(outcomes)
    return outcomes, version


def origin() -> dict[str, object]:
    """Tags of an MLflow run that lead back to the Prefect run."""
    tags: dict[str, object] = {"prefect.flow_run_id": flow_run.get_id()}
    page = flow_run.get_flow_run_ui_url()
    if page:
        note = f"[Prefect flow run]({page}); the report is the artifact `report.md`."
        tags |= {"prefect.url": page, "mlflow.note.content": note}
    return tags


def run_chain(config: ForgeConfig, folder: Path, data: Dataset, tracker: Tracker, progress: Progress) -> list[Outcome]:
    """Every phase on what the one before it handed on, until one fails."""
    outcomes: list[Outcome] = []
    parents: tuple[Checkpoint, ...] = ()
    for name in config.chain:
        stage = Stage(find_phase(name), config.section(name), parents, data, folder / name)
        again = stage.config.on_fail == "retry"
        outcome = attempt(stage, config, tracker, again)
        if outcome.status == "failed" and again:
            say(f"{name}: tried once more with seed {stage.config.seed + 1}")
            outcome = attempt(stage.with_next_seed(), config, tracker)
        outcomes.append(outcome)
        progress.advance()
        if outcome.kept is None:
            break
        parents = (outcome.kept,)
    return outcomes


def attempt(stage: Stage, config: ForgeConfig, tracker: Tracker, again: bool = False) -> Outcome:
    """Run a stage or take what it made before, judge it, decide what stays. `again`: a failure is tried once more."""
    before = stage.finished(say)
    if before is not None:
        say(f"{stage.phase.name}: done before, skipped")
    elif config.reuse:
        before = borrow(stage, config.out, say)
    with tracker.phase(stage.phase.name, stage.key) as log:
        # What lies on the disk is the truth: without it Prefect's memory of a result is worth nothing, and a folder
        # that was moved is still whole although that memory has its old place.
        run = phase_task.with_options(refresh_cache=before is None, result_storage=stage.out.parent / ".prefect")
        run(stage, config.runner, log.metrics)
        made = open_checkpoint(stage.out)
        gate = gate_task(stage, made, config.evaluation, before is not None, again, return_state=True)
        outcome = cast(Outcome | Exception, gate.result(raise_on_failure=False))  # what the state carries
        if isinstance(outcome, Exception):  # the judge itself failed
            raise outcome
        log.outcome(outcome)
    announce(outcome)
    if outcome.status != "passed":
        missed = failed_gates(outcome.judgement)
        announce_failed_gate(config.run, stage.phase.name, missed, stage.config.on_fail, flow_run.get_id())
    return outcome


@task(name="prepare data", task_run_name="data", cache_policy=NO_CACHE, persist_result=False)
def prepare_data_task(config: ForgeConfig, out: Path) -> Path:
    """Text and tasks as token blocks; prepared data of the same config is left as it is."""
    began = time.monotonic()
    data = prepare_data(config.data, config.cognate.base, out)
    tokens = sum(source["tokens"] for source in data.card["sources"])
    say(f"data: {tokens:,} tokens ready in {duration(time.monotonic() - began)}")
    return data.path


def stage_key(context: Any, parameters: dict[str, Any]) -> str:
    """Prefect's cache key of a phase: our own."""
    stage: Stage = parameters["stage"]
    return stage.key


@task(
    name="phase",
    task_run_name="{stage.phase.name}",
    cache_policy=CacheKeyFnPolicy(cache_key_fn=stage_key),
    persist_result=True,
    result_serializer="json",
)
def phase_task(stage: Stage, runner: Runner, metrics: MetricsCallback) -> CheckpointRef:
    """Run the phase, unless its result stands on the disk."""
    done = stage.finished()
    if done is None:
        say(f"{stage.phase.name}: running")
        done = with_pool(runner, lambda pool: stage.run(metrics, pool))
    return reference(done)


@task(name="gate", task_run_name="{stage.phase.name} gate", cache_policy=NO_CACHE, persist_result=False)
def gate_task(stage: Stage, made: Checkpoint, config: EvaluationConfig, reused: bool, again: bool) -> State[Outcome]:
    """Judge a checkpoint on held-out data, show its gates, decide what stays; the state says which."""
    judgement = judge(stage, made, config)
    key = f"gates-{stage.phase.name.replace('_', '-')}"
    create_table_artifact(gate_rows(judgement), key=key, description=f"Gates of {stage.phase.name}")
    return gate_state(settle(stage, made, judgement, reused), again)


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report_task(
    config: ForgeConfig, folder: Path, began: float, data: Dataset, outcomes: Sequence[Outcome], tracker: Tracker
) -> Report:
    """Measure the agent, write `report.json` and `report.md`, show them in both UIs."""
    agent = measure_agent(outcomes, folder)
    seconds = time.monotonic() - began + sum(outcome.seconds or 0.0 for outcome in outcomes if outcome.reused)
    report = summarise(config, started(folder), seconds, data, outcomes, agent)
    write_report(folder, report)
    if agent is not None and config.plan.enabled:
        report = with_plan(report, agent, config, folder, tracker)
    size_plot(report).savefig(folder / "size-and-quality.png", dpi=120)
    markdown = render_markdown(report)
    tracker.report(markdown)
    create_markdown_artifact(markdown, key="report", description=f"Run {config.run}")
    if tracker.link:
        create_link_artifact(tracker.link, key="mlflow", description="The run in MLflow")
    return report


def with_plan(report: Report, agent: Agent, config: ForgeConfig, folder: Path, tracker: Tracker) -> Report:
    """The report with what to rent for its agent, which enters the atlas; no plan costs the run nothing."""
    try:
        own.enter(Path(agent.packed or agent.path), path=config.out / own.DEFAULT.name)
        planned = recommend_task(config.plan.request, folder / "plan", folder, tracker)
    except ForgeError as error:
        say(f"recommend: {error}")
        return report
    report = report.model_copy(update={"recommendation": planned.summary})
    write_report(folder, report)
    return report


def stop_if_failed(outcomes: Sequence[Outcome]) -> None:
    """Raise `GateFailed` when the chain ended without an agent."""
    last = outcomes[-1]
    if last.kept is None:
        raise GateFailed(f"{last.stage.phase.name}: gates not met: {failed_gates(last.judgement)}")
