"""What becomes of a finished agent: registered as the challenger, decided about, made the champion."""

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows.approval import Approval
from flows.champion import promote
from flows.console import say
from flows.gating import Outcome
from flows.parameters import ForgeConfig
from flows.registry import Origin, Version, register
from flows.tracking import Tracker, existing
from phases.dataset import Dataset
from phases.errors import ForgeError


@task(name="register", task_run_name="register", cache_policy=NO_CACHE, persist_result=False)
def register_task(config: ForgeConfig, data: Dataset, outcomes: Sequence[Outcome], tracker: Tracker) -> Version | None:
    """Register the agent; None when the chain ended without one, or while MLflow is away."""
    agent = outcomes[-1].kept
    if agent is None:
        return None
    origin = Origin(
        profile=config.profile,
        run=config.run,
        data_digest=data.digest,
        gates_passed=all(outcome.kept is not None for outcome in outcomes),
        flow_run_id=flow_run.get_id(),
        flow_run_url=flow_run.get_flow_run_ui_url(),
    )
    version = register(tracker, config.agent, agent, origin)
    if version is not None:
        create_link_artifact(version.link, key="model", description=f"{version.name} {version.number} in MLflow")
    return version


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE, persist_result=False)
def promote_task(out: Path, version: Version, approval: Approval | None) -> None:
    """Make the version the champion unless it was rejected; a version that was it before is left to who decided since.

    What cannot be done now is said and can be done with `forge promote`: the agent itself is finished.
    """
    decision = "approve" if approval is None else approval.decision
    try:
        with existing(out) as client:
            if approval is not None:
                for key, value in approval.model_dump(exclude={"digest"}).items():
                    client.set_model_version_tag(version.name, str(version.number), f"approval.{key}", str(value))
            if decision == "approve" and not version.promoted_before:
                promote(client, version.name, version.number)
                say(f"{version.name} {version.number}: the champion now, {version.link}")
    except ForgeError as error:
        say(f"{version.name} {version.number}: not promoted ({error}); `forge promote` does it later")
    if approval is not None:
        text = f"**{approval.decision}** at {approval.at}\n\n{approval.comment or '(no comment)'}"
        create_markdown_artifact(text, key="approval", description=f"Decision about {version.name} {version.number}")
