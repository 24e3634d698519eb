"""What is installed: versions, imports that break."""

import sys
from collections.abc import Callable

import pytest

from flows.checkup import install
from flows.checkup.finding import Finding, Scope

PIP = "-m pip install -r "


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes packages appear to have another version, or None: to be missing."""
    real = install.installed

    def pretend(**other: str | None) -> None:
        monkeypatch.setattr(install, "installed", lambda name: other[name] if name in other else real(name))

    return pretend


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("fastapi", "0.165.0", "fastapi 0.165.0, needed is <0.151 (Prefect 3.8.8's server breaks"),
        ("sqlalchemy", "2.1.0", "sqlalchemy 2.1.0, needed is <2.1 (Prefect 3.8.8's scheduler silently stops"),
        ("torch", "2.14.0", "torch 2.14.0, needed is "),
        ("transformers", None, "transformers is missing"),
    ],
)
def test_wrong_versions(
    expect: Callable[..., Finding], name: str, version: str | None, said: str, versions: Callable[..., None]
) -> None:
    versions(**{name: version})
    expect(install.packages, "wrong", said, PIP)


def test_other_versions_than_the_lock_are_a_warning(versions: Callable[..., None]) -> None:
    versions(tqdm="4.99.0")
    assert any("tqdm 4.99.0" in found.found and found.level == "warning" for found in install.packages(Scope()))
    assert install._same("2.13.0+cpu", "2.13.0") and not install._same("2.13.1", "2.13.0")


def test_a_server_that_cannot_be_imported(expect: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "APP", "raise TypeError('Body() got an unexpected keyword argument')")
    expect(install.prefect_server, "wrong", "(TypeError: Body() got", PIP)
    monkeypatch.setattr(install, "APP", "import time; time.sleep(60)")
    monkeypatch.setattr(install, "LIMIT_SECONDS", 0.2)
    expect(install.prefect_server, "warning", "the machine is busy", None)


def test_a_torch_that_cannot_be_imported(expect: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "DEVICES", "import no_torch")
    expect(install.devices, "wrong", "No module named 'no_torch'", PIP)


def test_another_python(expect: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    expect(install.python, "wrong", "3.13.1, 3.11 is needed", "rm -rf .venv && make test")
