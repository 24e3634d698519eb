"""`forge doctor` as a whole: quick, without a trace, never raising. Its checks have tests of their own in `checkup`."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import doctor
from flows.checkup import install
from flows.checkup.finding import ROOT, Finding, Scope
from flows.cli import main


@pytest.mark.slow
def test_the_command_is_quick_and_leaves_no_trace(tmp_path: Path) -> None:
    began = time.monotonic()
    command = [sys.executable, "-m", "flows.cli", "doctor", "--json", "--out", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    said = json.loads(done.stdout)
    assert done.returncode == (2 if said["wrong"] else 0) and not done.stderr
    assert {"python", "packages", "prefect", "devices", "memory", "disk", "ports"} <= {
        f["check"] for f in said["findings"]
    }
    assert time.monotonic() - began < 20 and said["seconds"] < 10 and list(tmp_path.iterdir()) == []


def test_it_works_with_nothing_installed(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-m", "flows.cli", "doctor", "--out", str(tmp_path)]  # -S: no site-packages
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        "wrong    packages     could not be checked (ModuleNotFoundError: No module named 'packaging')" in done.stdout
    )
    assert "-m pip install -r " in done.stdout and "ok       disk" in done.stdout


def test_a_check_that_breaks_is_a_finding() -> None:
    def fragile(scope: Scope) -> Iterator[Finding]:
        yield Finding("fragile", "ok", "so far")
        raise RuntimeError("a\nsurprise")

    found = doctor.examine(Scope(), (fragile, install.commit))
    assert [finding.level for finding in found] == ["ok", "wrong", "ok"]
    assert "could not be checked (RuntimeError: a surprise)" in found[1].found


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("warning", 0), ("wrong", 2)])
def test_exit_code(level: Any, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "examine", lambda scope: [Finding("disk", level, "full", "rm")])
    assert main(["doctor"]) == code
    assert capsys.readouterr().out == f"{level:<8} disk         full; mend: rm\n"
