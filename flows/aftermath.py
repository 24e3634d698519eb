"""After a run was killed: its MLflow runs must not say RUNNING for ever. Only the worker is left to see to that."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.runs_folder import OUT
from flows.tracking import EXPERIMENT, MlflowClient, existing
from phases.errors import ForgeError


def end_tracking(flow: Any, flow_run: Any, state: Any) -> None:
    """Hook of a crashed or cancelled run; Prefect passes these arguments by name."""
    end_runs_of(str(flow_run.id), flow_run.parameters)


def end_runs_of(flow_run_id: str, parameters: Mapping[str, Any]) -> None:
    """End what this flow run left running in MLflow as KILLED; does nothing while MLflow is away."""
    config = parameters.get("config", {})
    out = Path(config.get("out", OUT) if isinstance(config, dict) else config.out)
    with contextlib.suppress(ForgeError), existing(out) as client:
        _end(client, flow_run_id)


def _end(client: MlflowClient, flow_run_id: str) -> None:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return
    where = [experiment.experiment_id]
    for parent in client.search_runs(where, f"tags.`prefect.flow_run_id` = '{flow_run_id}'"):
        nested = client.search_runs(where, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
        for run in (*nested, parent):
            if run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, "KILLED")
