"""Bad input at the command line: one line without a traceback for each kind, exit code 2, nothing half-written."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import main
from flows.parameters import ForgeConfig


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused; its one line."""
    try:
        code = main(arguments)
    except SystemExit as stopped:  # argparse's own
        code = int(str(stopped.code))
    shown = capsys.readouterr()
    assert code == 2 and shown.out == ""
    said = ("data:", "cognate:", "evomerge:", "quiet_star:", "bitnet:", "forge: running")
    lines = [line for line in shown.err.splitlines() if not line.startswith(said)]
    assert len(lines) == 1 and lines[0].startswith("forge: "), shown.err
    return lines[0]


BAD_SETTINGS = [
    (["--profile", "big"], "profile 'big': unknown"),
    (["--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
    (["--set", "cognate.trunk.stepz=1"], "unknown key 'cognate.trunk.stepz'"),
    (["--set", "runner=spark"], "'threads', 'processes', 'dask' or 'ray'"),
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
    short: ForgeConfig, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "a part of this path is a file" in refused(["run", *settings, "--out", settings[1]], capsys)
    assert "/proc/t: the file system is read-only" in refused(["run", *settings, "--out", "/proc"], capsys)
    taken = ["run", *settings, "--out", str(short.out), "--set", "seed=3"]
    assert "taken by another config (differing: adas.seed, baking.seed, bitnet.seed, cognate.seed" in refused(
        taken, capsys
    )


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
