"""Servers that are dead or of another version, and the hub."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from flows.checkup import install, services
from flows.checkup.finding import Finding


def test_a_dead_prefect_server(
    expect: Callable[..., Finding], dead: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{dead.replace('//', '//me:S3CRET@')}/api")
    mend = "prefect server start, or unset PREFECT_API_URL"
    found = expect(services.prefect, "wrong", f"{dead}/api: no server answers", mend)
    assert "S3CRET" not in str(found)
    monkeypatch.delenv("PREFECT_API_URL")
    (home := tmp_path / "prefect-home").mkdir()
    text = f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{dead}/api"\n'
    (home / "profiles.toml").write_text(text)
    expect(services.prefect, "wrong", "profile mine in ", "prefect config unset PREFECT_API_URL")


def test_a_prefect_server_of_another_version(
    expect: Callable[..., Finding],
    site: Callable[[dict[str, str]], AbstractContextManager[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with site({"/api/health": "true", "/api/version": '"3.1.0"'}) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        expect(services.prefect, "warning", "the server is 3.1.0, here is ", "unset PREFECT_API_URL")


def test_mlflow_servers(
    expect: Callable[..., Finding],
    site: Callable[[dict[str, str]], AbstractContextManager[str]],
    dead: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead)
    expect(services.mlflow, "wrong", f"{dead}: no server answers", "unset MLFLOW_TRACKING_URI")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    expect(services.mlflow, "warning", "MLflow 3 has no such store", None)
    with site({"/health": "OK", "/version": str(install.installed("mlflow"))}) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        expect(services.mlflow, "ok", f"{url}: answers", None)


def test_the_hub_is_asked_only_on_request(
    expect: Callable[..., Finding], dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", dead)
    expect(services.hub, "ok", "no offline flag set", None)
    expect(services.hub, "warning", "cannot be reached", "export HF_HUB_OFFLINE=1", online=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    expect(services.hub, "ok", "HF_HUB_OFFLINE=1, so nobody tries", None, online=True)
