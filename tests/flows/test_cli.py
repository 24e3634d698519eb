"""The command line: what is printed where, exit codes, and one line without a traceback for each kind of bad input."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluation.judges import JUDGES
from flows.cli import main
from flows.parameters import ForgeConfig
from phases.checkpoint import open_checkpoint
from phases.storage import sha256_file


def test_help_and_phases_are_quick() -> None:
    code = (
        "import sys; from flows.cli import main; main(['phases']); assert not {'torch', 'prefect'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1  cognate ") and "\n5  forge " in done.stdout


def test_phases_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phases", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [
        "cognate",
        "evomerge",
        "quiet_star",
        "bitnet",
        "forge",
        "baking",
        "adas",
        "compression",
    ]


def test_report_is_printed(original: ForgeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(original.folder)]) == 0
    shown = capsys.readouterr().out
    assert re.search("quiet_star +rolled_back", shown) and max(map(len, shown.splitlines())) <= 110


def test_report_as_json_is_the_file(original: ForgeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(original.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((original.folder / "report.json").read_text())


def test_report_by_name(original: ForgeConfig, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    (original.out.parent / "checkpoints").symlink_to(original.out)
    monkeypatch.chdir(original.out.parent)
    assert main(["report", "t"]) == 0 and capsys.readouterr().out.startswith("run t ")


def test_run_ends_with_the_table_and_both_interfaces(
    copy: ForgeConfig, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *settings, "--out", str(copy.out)]) == 0
    shown = capsys.readouterr()
    assert "prefect server start" in shown.out and f"sqlite:///{copy.out.resolve()}/mlflow.db" in shown.out
    assert "cognate: done before, skipped" in shown.err


def test_run_prints_json(copy: ForgeConfig, settings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *settings, "--out", str(copy.out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == "t"


@pytest.mark.usefixtures("prefect_server", "strict")
def test_failed_gate_exits_with_one(settings: list[str], runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *settings, "--out", str(runs)]) == 1
    shown = capsys.readouterr()
    assert re.search(r"cognate +failed", shown.out) and "forge: cognate: gates not met: impossible" in shown.err


@pytest.mark.usefixtures("prefect_server", "lenient")
def test_ctrl_c_leaves_a_run_that_resumes(
    settings: list[str], runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    command = ["run", *settings, "--out", str(runs)]
    with monkeypatch.context() as patch:
        patch.setitem(JUDGES, "evomerge", interrupt)
        assert main(command) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "forge: stopped; the same command resumes"
    assert main(command) == 0
    assert "evomerge: done before, skipped" in capsys.readouterr().err


def test_evaluate_finds_the_data_of_the_run(original: ForgeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(original.folder / "cognate"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["checkpoint"] == open_checkpoint(original.folder / "cognate").digest
    assert {"model/bits_per_byte", "floor:bigram/bits_per_byte"} <= {m["name"] for m in shown["metrics"]}


def test_evaluate_runs_our_tasks(original: ForgeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(original.folder / "evomerge"), "--tasks", "forge_memory"]) == 0
    assert "lm-eval:forge_memory/exact_match" in capsys.readouterr().out


def test_phase_alone_then_again(
    original: ForgeConfig, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "merged"
    command = ["phase", "evomerge", "--input", str(original.folder / "cognate"), "--out", str(out), *settings, "--json"]
    assert main(command) == 1  # it beats no parent: a gate failed
    first = json.loads(capsys.readouterr().out)
    weights = [sha256_file(folder / "model.safetensors") for folder in (out, original.folder / "evomerge")]
    assert weights[0] == weights[1]
    assert main(command) == 1
    assert json.loads(capsys.readouterr().out) == first
    assert [p.name for p in out.parent.iterdir() if p.is_dir()] == ["merged"]
