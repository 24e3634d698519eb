"""Finished agents in MLflow's registry: a version each, with its files and everything that leads back to its making.

The files lie in the artifacts of the run that made them, where a tracking server takes them too; the version points
there. The newest version is the `challenger`; `flows.champion` makes champions.
"""

from dataclasses import dataclass
from typing import Any

from evaluation.expert_size import expert_bytes
from evaluation.latency import count_parameters
from flows.console import say
from flows.pages import run_page, version_page
from flows.tracking import MlflowClient, Tracker, unless
from phases.checkpoint import Checkpoint
from phases.environment import code_version

CHALLENGER = "challenger"
ABOUT = "Finished agents of `forge run`. The champion is in use; the challenger is the newest."


@dataclass(frozen=True)
class Origin:
    """Where an agent comes from."""

    profile: str
    run: str
    data_digest: str
    gates_passed: bool
    """Whether every phase met its gates or was rolled back to a parent that had."""
    flow_run_id: str | None = None
    flow_run_url: str | None = None
    """Address of the flow run's page in Prefect's UI."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    number: int
    link: str
    """Address of its page in MLflow's UI."""
    promoted_before: bool
    """Whether it is or was the champion: then a rerun of its run must not overrule who decided since."""


def register(tracker: Tracker, name: str, agent: Checkpoint, origin: Origin) -> Version | None:
    """Make the agent a version of the model `name`, or find the one that this run made of it before.

    None, having said so, while MLflow is away: the same run, run again, registers it.
    """
    version = tracker.now(lambda client, run_id: _register(client, run_id, name, agent, origin))
    if version is None:
        say(f"{name}: not registered, tracking is away; the same command again registers it")
    return version


def _register(client: MlflowClient, run_id: str, name: str, agent: Checkpoint, origin: Origin) -> Version:
    unless("RESOURCE_ALREADY_EXISTS", lambda: client.create_registered_model(name, description=ABOUT))
    of_this_run = [version for version in versions_of(client, name) if version.run_id == run_id]
    same = [version for version in of_this_run if version.tags.get("checkpoint.digest") == agent.digest]
    version = same[0] if same else _upload(client, run_id, name, agent, origin)
    number, gates = int(version.version), _verdict(origin)
    if version.tags["gates"] != gates:  # judged again since
        client.set_model_version_tag(name, str(number), "gates", gates)
    if number == max(int(v.version) for v in versions_of(client, name)):
        client.set_registered_model_alias(name, CHALLENGER, str(number))
    client.set_tag(run_id, "model.version", f"{name}/{number}")
    return Version(name, number, version_page(name, number), any(key.startswith("promotion.") for key in version.tags))


def _upload(client: MlflowClient, run_id: str, name: str, agent: Checkpoint, origin: Origin) -> Any:
    # A folder for each digest: a run that was run again with changed code must not write over an older version.
    folder = f"agent/{agent.digest[:12]}"
    client.log_artifacts(run_id, str(agent.path), folder)
    tags = {
        "checkpoint.digest": agent.digest,
        "checkpoint.path": str(agent.path.resolve()),
        "data.digest": origin.data_digest,
        "profile": origin.profile,
        "run": origin.run,
        "commit": code_version(),
        "gates": _verdict(origin),
        "prefect.flow_run_id": origin.flow_run_id,
        "prefect.url": origin.flow_run_url,
    }
    return client.create_model_version(
        name,
        f"runs:/{run_id}/{folder}",
        run_id=run_id,
        tags={key: value for key, value in tags.items() if value is not None},
        description=_description(client, run_id, agent, origin),
    )


def _verdict(origin: Origin) -> str:
    return "passed" if origin.gates_passed else "failed"


def _description(client: MlflowClient, run_id: str, agent: Checkpoint, origin: Origin) -> str:
    parameters, weight_bytes = count_parameters(agent.path)
    weight_bytes += expert_bytes(agent.path)
    page = run_page(str(client.get_run(run_id).info.experiment_id), run_id)
    flow = f"[{origin.flow_run_id}]({origin.flow_run_url})" if origin.flow_run_url else origin.flow_run_id or "none"
    what = agent.manifest.get("phase", "checkpoint")
    return "\n".join(
        [
            f"Agent of run **{origin.run}** (profile {origin.profile}): {what}, {parameters:,} parameters, "
            f"{weight_bytes:,} bytes of weights.",
            "",
            f"- MLflow run: [{origin.run}]({page}), with [report.md]({page}/artifacts/report.md)",
            f"- Prefect flow run: {flow}",
            f"- checkpoint: `{agent.digest}` at `{agent.path.resolve()}`",
            f"- data: `{origin.data_digest}`",
            f"- commit: `{code_version()}`",
        ]
    )


def versions_of(client: MlflowClient, name: str) -> list[Any]:
    """Every version of a registered model."""
    return list(client.search_model_versions(f"name = '{name}'"))
