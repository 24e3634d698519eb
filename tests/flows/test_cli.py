"""The command line: what is printed where, exit codes, and one line without a traceback for each kind of bad input."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluation.judges import JUDGES
from flows.cli import main
from flows.parameters import ForgeConfig
from phases.checkpoint import open_checkpoint
from phases.storage import sha256_file


@pytest.fixture
def settings(tiny_file: Path) -> list[str]:
    """`--config FILE` of the tiny run `t`."""
    return ["--config", str(tiny_file)]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused; its one line."""
    try:
        code = main(arguments)
    except SystemExit as stopped:  # argparse's own
        code = int(str(stopped.code))
    shown = capsys.readouterr()
    assert code == 2 and shown.out == ""
    lines = [line for line in shown.err.splitlines() if not line.startswith(("data:", "cognate:", "evomerge:"))]
    assert len(lines) == 1 and lines[0].startswith("forge: "), shown.err
    return lines[0]


def test_help_and_phases_are_quick() -> None:
    code = (
        "import sys; from flows.cli import main; main(['phases']); assert not {'torch', 'prefect'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1  cognate ") and "\n2  evomerge " in done.stdout


def test_phases_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phases", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["cognate", "evomerge"]


def test_report_is_printed(original: ForgeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(original.folder)]) == 0
    shown = capsys.readouterr().out
    assert "evomerge  rolled_back" in shown and max(map(len, shown.splitlines())) <= 110


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


BAD_SETTINGS = [
    (["--profile", "big"], "profile 'big': unknown"),
    (["--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
    (["--set", "cognate.trunk.stepz=1"], "unknown key 'cognate.trunk.stepz'"),
    (["--set", "runner=spark"], "'threads', 'dask' or 'ray'"),
    (["--profile", "smoke", "--config", "x"], "not allowed with argument"),
    (["--colour"], "unrecognized arguments: --colour"),
]


@pytest.mark.parametrize(("arguments", "wanted"), BAD_SETTINGS, ids=[wanted for _, wanted in BAD_SETTINGS])
def test_bad_settings(arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert wanted in refused(["run", *arguments], capsys)


BAD_TEXT = [
    (None, "corpus.txt"),
    (b"", "empty"),
    (b"caf\xe9 " * 500, "UTF-8"),
    (b"one line only", "add text"),
]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("content", "wanted"), BAD_TEXT, ids=["missing", "empty", "latin-1", "one line"])
def test_bad_corpus(
    content: bytes | None,
    wanted: str,
    tiny_values: dict[str, Any],
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = tmp_path / "corpus.txt"
    if content is not None:
        corpus.write_bytes(content)
    data = {**tiny_values["data"], "sources": [{"kind": "files", "paths": [str(corpus)]}]}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({**tiny_values, "data": data}))
    command = ["run", "--config", str(tmp_path / "t.yaml"), "--out", str(runs)]
    assert wanted in refused(command, capsys)
    assert not (runs / "t" / "data").exists()


@pytest.mark.usefixtures("prefect_server")
def test_vocabulary_larger_than_the_data(settings: list[str], runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(runs)]
    assert "vocabulary" in refused(["run", *settings, *out, "--set", "data.vocabulary=60000"], capsys)


def test_folders_that_cannot_be_used(
    original: ForgeConfig, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "a part of this path is a file" in refused(["run", *settings, "--out", settings[1]], capsys)
    assert "/proc/t: the file system is read-only" in refused(["run", *settings, "--out", "/proc"], capsys)
    taken = ["run", *settings, "--out", str(original.out), "--set", "seed=3"]
    assert "taken by another config (differing: cognate.seed, data.seed" in refused(taken, capsys)


@pytest.fixture
def broken(original: ForgeConfig, tmp_path: Path) -> Path:
    """A copy of the cognate checkpoint, to be damaged."""
    return Path(shutil.copytree(original.folder / "cognate", tmp_path / "cognate"))


def damage_missing(path: Path) -> None:
    (path / "model.safetensors").unlink()


def damage_truncated(path: Path) -> None:
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-100])


def damage_altered(path: Path) -> None:
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)


def damage_manifest(path: Path) -> None:
    (path / "forge.json").write_text('{"phase"')


DAMAGE = [damage_missing, damage_truncated, damage_altered, damage_manifest]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda function: function.__name__.removeprefix("damage_"))
def test_bad_checkpoint(
    damage: Any, broken: Path, original: ForgeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(broken)
    data = ["--data", str(original.folder / "data")]
    line = refused(["evaluate", str(broken), *data], capsys)
    assert str(broken) in line and any(word in line for word in ("missing", "truncated", "altered"))
    out = tmp_path / "merged"
    assert refused(["phase", "evomerge", "--input", str(broken), "--out", str(out), *data], capsys) == line
    assert not out.exists()


def test_bad_inputs_of_a_phase(original: ForgeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "m"), "--data", str(original.folder / "data")]
    assert "phase 'bake': unknown; choose from" in refused(["phase", "bake", *out], capsys)
    assert "needs a trunk and at least two models" in refused(["phase", "evomerge", *out], capsys)
    assert "no such folder" in refused(["phase", "evomerge", "--input", str(tmp_path / "no"), *out], capsys)
    there = ["phase", "cognate", "--out", str(original.folder / "data"), *out[2:]]
    assert "exists and is not from these inputs" in refused(there, capsys)


def test_bad_evaluation(original: ForgeConfig, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give --data DIR" in refused(["evaluate", str(broken)], capsys)
    assert "no such folder" in refused(["evaluate", "nowhere"], capsys)
    checkpoint = str(original.folder / "evomerge")
    assert "task forge_memry: unknown" in refused(["evaluate", checkpoint, "--tasks", "forge_memry"], capsys)
    assert "there is no report" in refused(["report", "nowhere"], capsys)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB; only root may mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_full_disk(
    small_disk: Path, original: ForgeConfig, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (small_disk / "ballast").write_bytes(b"x" * 300_000)
    command = ["phase", "cognate", "--out", str(small_disk / "a"), "--data", str(original.folder / "data"), *settings]
    assert "the disk is full: free some space" in refused(command, capsys)
    assert not (small_disk / "a").exists()
