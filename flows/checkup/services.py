"""The servers that the environment names, and whether the hub may be asked."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

from flows.checkup.finding import Finding, Scope, ask, ok, unquoted, warning, without_password, wrong
from flows.checkup.install import installed

TRUE = {"1", "ON", "YES", "TRUE"}
"""What the hub's library takes for yes."""


def prefect(scope: Scope) -> Iterator[Finding]:
    """Prefect's server, when one is named, answers and is of our version."""
    address, source = _prefect_address()
    if address is None:
        yield ok("prefect API", "PREFECT_API_URL not set: runs start a temporary server")
        return
    shown = f"{source} {without_password(address)}"
    unset = "unset PREFECT_API_URL" if source == "PREFECT_API_URL" else "prefect config unset PREFECT_API_URL"
    base = address.rstrip("/")
    if ask(f"{base}/health") is None:
        yield wrong("prefect API", f"{shown}: no server answers", f"prefect server start, or {unset}")
        return
    theirs, ours = unquoted(ask(f"{base}/version")), installed("prefect")
    if theirs != ours:
        yield warning("prefect API", f"{shown}: the server is {theirs or 'of unknown version'}, here is {ours}", unset)
    else:
        yield ok("prefect API", f"{shown}: answers, {theirs}")


def _prefect_address() -> tuple[str | None, str]:
    """The server that Prefect would use and where that is written; Prefect itself need not be importable."""
    if address := os.environ.get("PREFECT_API_URL"):
        return address, "PREFECT_API_URL"
    path = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser() / "profiles.toml"
    if not path.is_file():
        return None, ""
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    name = os.environ.get("PREFECT_PROFILE", written.get("active", ""))
    address = written.get("profiles", {}).get(name, {}).get("PREFECT_API_URL")
    return address, f"profile {name} in {path}:"


def mlflow(scope: Scope) -> Iterator[Finding]:
    """MLflow's server, when one is named, answers and is of our version."""
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        yield ok("mlflow API", f"MLFLOW_TRACKING_URI not set: runs are tracked in {scope.out / 'mlflow.db'}")
    elif not address.startswith(("http://", "https://")):
        level = ok if address.startswith(("sqlite:", "postgresql", "mysql", "mssql", "databricks")) else warning
        found = f"MLFLOW_TRACKING_URI {without_password(address)}: "
        yield level("mlflow API", found + ("a database, not asked" if level is ok else "MLflow 3 has no such store"))
    elif ask(f"{address.rstrip('/')}/health") is None:
        mend = "start it, or unset MLFLOW_TRACKING_URI"
        yield wrong("mlflow API", f"MLFLOW_TRACKING_URI {without_password(address)}: no server answers", mend)
    else:
        theirs, ours = unquoted(ask(f"{address.rstrip('/')}/version")), installed("mlflow")
        level = ok if theirs == ours else warning
        yield level("mlflow API", f"MLFLOW_TRACKING_URI {without_password(address)}: answers, {theirs} (here {ours})")


def hub(scope: Scope) -> Iterator[Finding]:
    """Whether models and data may be fetched; the network is touched only on request."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    values = {name: os.environ[name] for name in names if name in os.environ}
    flags = ", ".join(f"{name}={value}" for name, value in values.items()) or "no offline flag set"
    offline = any(value.upper() in TRUE for value in values.values())
    if not scope.online:
        yield ok("hub", f"{flags}: {'not used' if offline else 'used when a config names it'} (--online asks it)")
        return
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if ask(f"{address}/api/models?limit=1", seconds=4) is not None:
        yield ok("hub", f"{without_password(address)} answers; {flags}")
    elif offline:
        yield ok("hub", f"cannot be reached; {flags}, so nobody tries")
    else:
        mend = "export HF_HUB_OFFLINE=1, and use local files in the config"
        yield warning("hub", f"{without_password(address)} cannot be reached", mend)
