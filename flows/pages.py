"""Addresses of MLflow's pages."""

import os
from urllib.parse import quote


def ui_address() -> str:
    """Where MLflow's pages are: `FORGE_MLFLOW_URL`, else the tracking server, else where `mlflow ui` serves them."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    own = tracking if tracking.startswith("http") else "http://127.0.0.1:5000"
    return (os.environ.get("FORGE_MLFLOW_URL") or own).rstrip("/")


def run_page(experiment: str, run_id: str) -> str:
    """Address of a run's page in MLflow's UI."""
    return f"{ui_address()}/#/experiments/{experiment}/runs/{run_id}"


def version_page(name: str, number: int) -> str:
    """Address of a version's page in MLflow's UI."""
    return f"{ui_address()}/#/models/{quote(name, safe='')}/versions/{number}"
