"""The flow `recommend`: a request in, a plan with manifests out; of the atlas, or of a run's agent.

    prefect deployment run recommend/recommend
    forge recommend --report checkpoints/laptop        # the same without a server

`forge` runs the same task at its end (`recommend_task`), so that a new agent comes with its plan.
"""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from deployment.planning.request import Request
from flows.console import say
from flows.parameters import NAME
from flows.planning import Planned, metrics, plan
from flows.tracking import Tracker, track
from phases.strict import StrictModel


class RecommendConfig(StrictModel):
    """One question to the planner."""

    name: str = Field("plan", pattern=NAME)
    """Of the folder of the plan."""
    out: Path = Path("checkpoints")
    """Folder of all runs and plans."""
    run: str | None = Field(None, pattern=NAME)
    """Name of a forge's or a distillation's run, whose agent is planned for; empty: the models of the atlas."""
    request: Request = Request()
    """Traffic, objectives, what to choose from, budget."""


@flow(name="recommend", persist_result=False)
def recommend(config: RecommendConfig) -> dict[str, Any]:
    """What to rent and how to serve on it, with manifests; the result is the summary.

    Args:
        config: The request, and whose agent it is for. The defaults plan a chat for a hundred users.
    """
    folder = config.out / config.name
    report = None if config.run is None else config.out / config.run
    with track(config.out, config.name, config.request.model_dump_json()) as tracker:
        tracker.begin(config.model_dump(mode="json"), {})
        planned = recommend_task(config.request, folder, report, tracker)
    return planned.summary


@task(name="recommend", task_run_name="recommend", cache_policy=NO_CACHE, persist_result=False)
def recommend_task(request: Request, folder: Path, report: Path | None, tracker: Tracker) -> Planned:
    """Plan, write, show in both UIs."""
    planned = plan(request, folder, report)
    if planned.rows:
        create_table_artifact(planned.rows, key="candidates", description="What meets the request, best first")
    create_markdown_artifact(planned.markdown, key="recommendation", description="The plan in words")
    tracker.parent.metrics(0, metrics(planned.summary))
    if planned.folder is not None:
        tracker.parent.write(lambda client, run_id: client.log_artifacts(run_id, str(planned.folder), "plan"))
    chosen = planned.summary["system"]
    say(f"recommend: {chosen or 'nothing meets the request; the report says what comes nearest'}")
    return planned
