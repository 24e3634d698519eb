"""A run's folder: whose it is, one process at a time, and what a folder that cannot be used says."""

import json
import os
import signal
from pathlib import Path

import pytest

from flows.parameters import ForgeConfig
from flows.run_directory import RUN, check_folder, differing_keys, locked, open_run, started
from flows.runs_folder import local_uri
from phases.errors import StorageError


def config(tmp_path: Path, **changes: object) -> ForgeConfig:
    return ForgeConfig.parse({"run": "a", "out": str(tmp_path), **changes}, "test")


def test_same_config_opens_again_and_keeps_its_start(tmp_path: Path) -> None:
    with open_run(config(tmp_path)) as folder:
        first = started(folder)
    with open_run(config(tmp_path)) as folder:
        assert started(folder) == first
    assert folder == tmp_path / "a"


def test_runner_and_place_may_change(tmp_path: Path) -> None:
    with open_run(config(tmp_path)):
        pass
    with open_run(config(tmp_path, runner="dask")) as folder:
        assert json.loads((folder / RUN).read_text())["config"]["run"] == "a"


def test_taken_name_lists_what_differs(tmp_path: Path) -> None:
    with open_run(config(tmp_path)) as folder:
        (folder / "cognate.key.json").write_text("{}")  # a phase was started
    other = config(tmp_path, cognate={"trunk": {"steps": 7}}, profile="own")
    with pytest.raises(StorageError, match="taken by another config.*cognate.trunk.steps, profile.*--set run=NAME"):
        open_run(other).__enter__()
    with pytest.raises(StorageError, match="taken by another config"):
        check_folder(other)


def test_second_run_at_once_is_refused(tmp_path: Path) -> None:
    with open_run(config(tmp_path)), pytest.raises(StorageError, match="another forge is writing to it"):
        open_run(config(tmp_path)).__enter__()


def test_lock_dies_with_its_process(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with locked(tmp_path / "a"):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with locked(tmp_path / "a"):
        pass


def test_altered_record_is_named(tmp_path: Path) -> None:
    with open_run(config(tmp_path)) as folder:
        (folder / RUN).write_text('{"config": {')
    with pytest.raises(StorageError, match=r"run.json: altered or truncated; delete the folder"):
        open_run(config(tmp_path)).__enter__()


def test_folder_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of this path is a file"):
        open_run(config(tmp_path / "file")).__enter__()


def test_folder_that_cannot_be_written() -> None:
    # Root may write anywhere but here; the system's own folder takes no new names from anybody.
    with pytest.raises(StorageError, match=r"/proc/a: .*choose another --out"):
        open_run(config(Path("/proc"))).__enter__()


def test_name_is_free_while_no_phase_was_started(tmp_path: Path) -> None:
    check_folder(config(tmp_path, cognate={"trunk": {"steps": 7}}))
    with open_run(config(tmp_path, cognate={"trunk": {"steps": 8}})) as folder:
        assert json.loads((folder / RUN).read_text())["config"]["cognate"]["trunk"]["steps"] == 8


def test_differing_keys_are_dotted() -> None:
    assert differing_keys({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}}) == ["a.c", "d"]


def test_tracking_address_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_uri(Path("runs")) == f"sqlite:///{tmp_path.resolve()}/runs/mlflow.db"
