"""The registry: one version for a run's agent, the way back to its making, promotion, rollback, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from flows.champion import history, promote, rollback
from flows.cli import main
from flows.registry import Origin, Version, register
from flows.tracking import MlflowClient, connect, track, tracking_uri
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, write_manifest
from phases.errors import InputError

ORIGIN = Origin("smoke", "t", "d" * 64, True, "f-1", "http://127.0.0.1:4200/runs/flow-run/f-1")
FAILED = Origin("smoke", "t", "d" * 64, False)


def agent(folder: Path, seed: int) -> Checkpoint:
    """A checkpoint as far as files go: 6 parameters."""
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        save_file({"w": torch.full((2, 3), float(seed))}, folder / "model.safetensors")
        write_manifest(folder, Manifest("evomerge", seed=seed))
    return open_checkpoint(folder)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs whose database the tests share: making one takes seconds."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture
def client(out: Path) -> MlflowClient:
    return connect(tracking_uri(out))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model of the test's own."""
    return str(request.node.name)


Add = Callable[..., Version]


@pytest.fixture
def add(out: Path, name: str) -> Add:
    """`add(1)`: run 1 makes agent 1, a version."""

    def added(number: int, origin: Origin = ORIGIN, run: int | None = None) -> Version:
        with track(out, f"{name} {run or number}", "2026-01-01") as tracker:
            version = register(tracker, name, agent(out / name / str(number), number), origin)
        assert version is not None
        return version

    return added


def champion(client: MlflowClient, name: str) -> int:
    return int(client.get_registered_model(name).aliases["champion"])


def artifacts(out: Path, client: MlflowClient, name: str, number: int) -> Path:
    """Where a version's files lie."""
    version = client.get_model_version(name, str(number))
    base = client.get_run(version.run_id).info.artifact_uri.removeprefix("file://")
    return Path(base) / version.source.split("/", 2)[2]


def test_a_version_leads_back_to_its_making(add: Add, client: MlflowClient, name: str, out: Path) -> None:
    made = add(1)
    version, checkpoint = client.get_model_version_by_alias(name, "challenger"), agent(out / name / "1", 1)
    assert made == Version(name, 1, f"http://127.0.0.1:5000/#/models/{name}/versions/1", False)
    assert version.source == f"runs:/{version.run_id}/agent/{checkpoint.digest[:12]}"
    assert version.tags.pop("commit")
    assert version.tags == {
        "checkpoint.digest": checkpoint.digest,
        "checkpoint.path": str(checkpoint.path),
        "data.digest": "d" * 64,
        "profile": "smoke",
        "run": "t",
        "gates": "passed",
        "prefect.flow_run_id": "f-1",
        "prefect.url": ORIGIN.flow_run_url,
    }
    page = f"http://127.0.0.1:5000/#/experiments/1/runs/{version.run_id}"
    for part in ("6 parameters", checkpoint.digest, str(checkpoint.path), f"({page})", f"({ORIGIN.flow_run_url})"):
        assert part in version.description
    assert client.get_run(version.run_id).data.tags["model.version"] == f"{name}/1"
    assert open_checkpoint(artifacts(out, client, name, 1)).digest == checkpoint.digest


def test_a_rerun_finds_its_version_and_uploads_nothing(
    add: Add, client: MlflowClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(1)
    promote(client, name)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", None)
        again = add(1)
    assert (again.number, again.promoted_before) == (1, True)
    assert add(2, run=1).number == 2, "another agent of the same run"
    assert add(1, run=3).number == 3, "the same agent of another run"
    assert add(2, run=1).number == 2
    assert client.get_model_version_by_alias(name, "challenger").version == 3, "the newest stays the challenger"
    assert len(client.search_model_versions(f"name = '{name}'")) == 3


def test_a_new_verdict_of_the_same_agent_counts(add: Add, client: MlflowClient, name: str) -> None:
    add(1, FAILED)
    with pytest.raises(InputError, match="its gates were not passed"):
        promote(client, name)
    add(1)
    assert promote(client, name).champion == 1


def test_promotion_and_the_way_back(add: Add, client: MlflowClient, name: str) -> None:
    for number in (1, 2, 3):
        add(number)
        move = promote(client, name)
        assert (move.champion, move.previous) == (number, number - 1 or None)
    promote(client, name, 1)
    assert [rollback(client, name).champion for _ in range(2)] == [3, 2]
    assert [(p.version, p.taken_back) for p in history(client, name)] == [(1, False), (2, False), (3, True), (1, True)]
    assert promote(client, name, 3).previous == 2
    assert [rollback(client, name).champion for _ in range(2)] == [2, 1] and champion(client, name) == 1
    with pytest.raises(InputError, match="nothing to go back to"):
        rollback(client, name)
    assert champion(client, name) == 1


def test_promoting_the_champion_changes_nothing(add: Add, client: MlflowClient, name: str) -> None:
    add(1)
    promote(client, name)
    move = promote(client, name, 1)
    assert move.champion == move.previous == 1 and len(history(client, name)) == 1


def test_what_was_rolled_back_returns_only_on_purpose(add: Add, client: MlflowClient, name: str) -> None:
    for number in (1, 2):
        add(number)
        promote(client, name)
    rollback(client, name)
    with pytest.raises(InputError, match="--version 2"):
        promote(client, name)
    assert promote(client, name, 2).champion == 2


@pytest.mark.parametrize("interrupted", ["promotion", "rollback"])
def test_a_command_that_was_cut_off_may_be_given_again(
    interrupted: str, add: Add, client: MlflowClient, out: Path, request: pytest.FixtureRequest
) -> None:
    name = str(request.node.name)
    for number in (1, 2, 3):
        add(number)
        if number < 3:
            promote(client, name)

    def cut(*arguments: Any) -> None:
        raise KeyboardInterrupt

    other = connect(tracking_uri(out))
    other.set_registered_model_alias = cut
    move = promote if interrupted == "promotion" else rollback
    with pytest.raises(KeyboardInterrupt):
        move(other, name)
    assert champion(client, name) == 2
    if interrupted == "promotion":
        assert rollback(client, name).champion == 1
    else:
        assert rollback(client, name).champion == 1 and promote(client, name).previous == 1


def test_a_champion_set_by_hand(add: Add, client: MlflowClient, name: str) -> None:
    add(1), add(2)
    promote(client, name, 1)
    client.set_registered_model_alias(name, "champion", "2")
    assert rollback(client, name).champion == 1


def test_a_deleted_version_is_passed_over(add: Add, client: MlflowClient, name: str) -> None:
    for number in (1, 2, 3):
        add(number)
        promote(client, name)
    client.delete_model_version(name, "2")
    assert rollback(client, name).champion == 1


def alter(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"x" * (folder / "model.safetensors").stat().st_size)


def replace(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "config.json").write_text("{}")


def remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


DAMAGE = [(alter, "model.safetensors: altered"), (replace, "are not what was registered"), (remove, "are gone from")]


@pytest.mark.parametrize(("damage", "wanted"), DAMAGE, ids=["altered", "replaced", "removed"])
def test_damaged_files_are_not_promoted(
    damage: Any, wanted: str, add: Add, client: MlflowClient, name: str, out: Path
) -> None:
    add(1)
    damage(artifacts(out, client, name, 1))
    with pytest.raises(InputError, match=wanted) as refusal:
        promote(client, name)
    assert len(str(refusal.value)) < 250 and "/tmp" not in str(refusal.value)
    assert "champion" not in client.get_registered_model(name).aliases and history(client, name) == []


def test_commands(add: Add, name: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = [name, "--out", str(out)]
    add(1), add(2)
    assert main(["promote", *where, "--version", "1", "--json"]) == 0
    page = f"http://127.0.0.1:5000/#/models/{name}/versions/"
    assert json.loads(capsys.readouterr().out) == {"name": name, "champion": 1, "previous": None, "link": f"{page}1"}
    assert main(["promote", *where]) == 0 and main(["promote", *where]) == 0
    shown = capsys.readouterr().out
    assert (
        shown == f"{name} 2 promoted: it is the champion now (before: 1)\n{page}2\n{name} 2 is the champion already\n"
    )
    assert main(["rollback", *where]) == 0
    assert capsys.readouterr().out == f"{name} 1 rolled back: it is the champion now (before: 2)\n{page}1\n"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused; its one line."""
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1, shown.err
    return shown.err


def test_mistakes_get_one_line(add: Add, name: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--out", str(out)]
    assert "nobody: no such registered model; there are: " in refused(["promote", "nobody", *where], capsys)
    assert "a/b" in refused(["rollback", "a/b", *where], capsys)
    add(1, FAILED)
    assert "nothing to go back to" in refused(["rollback", name, *where], capsys)
    assert "its gates were not passed" in refused(["promote", name, *where], capsys)
    for number in ("7", "0", "-1"):
        assert "there are: 1" in refused(["promote", name, "--version", number, *where], capsys)
    connect(tracking_uri(out)).delete_registered_model_alias(name, "challenger")
    assert "no challenger; choose a version with --version N (1)" in refused(["promote", name, *where], capsys)


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_without_a_database_nothing_is_made(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no mlflow.db" in refused([command, "--out", str(tmp_path / "nowhere")], capsys)
    assert "no mlflow.db" in refused([command, "--out", str(tmp_path)], capsys)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mlflow.db").write_text("what is this?" * 100)
    assert "not a database" in refused([command, "--out", str(tmp_path)], capsys)
