"""`accelerate launch` with two CPU processes: the curve of one process, one writer, and no process left waiting."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.parameters import load_config
from flows.run_directory import hold
from phases.checkpoint import open_checkpoint
from phases.data.prepare import prepare_data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODELS = ("trunk", "reasoning", "memory", "adaptive", "control")
PROGRAM = str(Path(__file__).with_name("curves_program.py"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(arguments: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, *arguments]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)


def launched(*arguments: str) -> list[str]:
    """The arguments under `accelerate launch` in two processes."""
    fixed = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    port = str(free_port())
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", port]
    return [*launch, *fixed, *arguments]


def phase(config: Path, data: Path, out: Path, *more: str, name: str = "cognate") -> list[str]:
    sets = [argument for setting in more for argument in ("--set", setting)]
    return ["-m", "flows.cli", "phase", name, "--config", str(config), "--data", str(data), "--out", str(out), *sets]


def said(process: subprocess.Popen[str]) -> list[str]:
    """What the forge itself said before it ended; the launcher adds a traceback of its own."""
    _, errors = process.communicate(timeout=120)
    return [line for line in errors.splitlines() if line.startswith("forge: ")]


@pytest.fixture(scope="module")
def data(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_data(load_config(file=tiny_file).data, None, tmp_path_factory.mktemp("accelerate") / "data").path


@pytest.fixture
def curves(tiny_values: dict[str, Any], data: Path, tmp_path: Path) -> Any:
    def measure(name: str, processes: int, **training: Any) -> dict[str, list[float]]:
        part = {**tiny_values["cognate"]["trunk"], "steps": 15, **training}
        config = tmp_path / f"{name}.json"
        config.write_text(json.dumps({**tiny_values["cognate"], "trunk": part, "branch": part}))
        program = [PROGRAM, str(data), str(tmp_path / name), str(config)]
        process = start(launched(*program) if processes == 2 else program)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        found: dict[str, list[float]] = json.loads((tmp_path / f"{name}.curves.json").read_text())
        return found

    return measure


def test_two_processes_have_the_curve_of_one(curves: Any) -> None:
    one, two = (curves(f"p{count}", count, optimizer="adamw") for count in (1, 2))
    assert set(one) == set(two) == set(MODELS)
    for model in MODELS:  # the adaptive branch too: a row skips the same layers in whichever process it is
        assert two[model] == pytest.approx(one[model], abs=1e-4)


def test_two_processes_are_two_micro_batches_bit_for_bit(curves: Any) -> None:
    micro, two = curves("micro", 1, accumulation=2), curves("two", 2)
    for model in set(MODELS) - {"adaptive"}:  # which draws an exit for each micro-batch
        assert two[model] == micro[model]


def test_the_command_makes_the_same_family(tiny_file: Path, data: Path, tmp_path: Path) -> None:
    for name, command in (("one", list), ("two", lambda arguments: launched(*arguments))):
        process = start(command(phase(tiny_file, data, tmp_path / name)))
        lines = said(process)
        assert process.returncode == 1 and not lines  # its gates are not met after three steps
    one, two = open_checkpoint(tmp_path / "one"), open_checkpoint(tmp_path / "two")
    losses = [[c.manifest["metrics"]["loss"] for c in (f, *f.siblings.values())] for f in (one, two)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert json.loads((tmp_path / "two.key.json").read_text())["digest"] == two.family_digest


def test_a_killed_run_ends_in_the_same_bits(tiny_file: Path, data: Path, tmp_path: Path) -> None:
    sets = ["cognate.branch.steps=40", "cognate.branch.save_seconds=0"]
    state = tmp_path / "killed.work" / "memory.state" / "training_state.safetensors"
    killed = start(launched(*phase(tiny_file, data, tmp_path / "killed", *sets)))
    while not state.exists() and killed.poll() is None:
        time.sleep(0.01)
    for process in [*psutil.Process(killed.pid).children(recursive=True), psutil.Process(killed.pid)]:
        process.kill()
    killed.communicate()
    assert state.exists()
    for name in ("killed", "whole"):
        said(start(launched(*phase(tiny_file, data, tmp_path / name, *sets))))
    assert open_checkpoint(tmp_path / "killed").family_digest == open_checkpoint(tmp_path / "whole").family_digest


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_stops_the_other(lost: int, tiny_file: Path, data: Path, tmp_path: Path) -> None:
    """Without a launcher that would notice: as under MPI."""
    command = phase(tiny_file, data, tmp_path / "out", "cognate.trunk.steps=1000000", "cognate.trunk.save_seconds=0")
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    pair = [start(command, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    state = tmp_path / "out.work" / "trunk.state" / "training_state.safetensors"
    while not state.exists() and pair[0].poll() is None:
        time.sleep(0.05)
    pair[lost].send_signal(signal.SIGKILL)
    lines = said(pair[1 - lost])
    assert pair[1 - lost].returncode == 2
    assert len(lines) == 1 and "another process of this training has stopped" in lines[0]
    pair[lost].communicate()


def test_the_main_process_speaks_for_all(tiny_file: Path, data: Path, tmp_path: Path) -> None:
    with hold(tmp_path / ".out.lock"):
        process = start(launched(*phase(tiny_file, data, tmp_path / "out")))
        lines = said(process)
    assert process.returncode != 0
    assert len(lines) == 1 and "another forge is writing to it" in lines[0]


def test_the_cpu_switch_of_accelerate_starts_one_process_and_we_say_so(
    tiny_file: Path, data: Path, tmp_path: Path
) -> None:
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--mixed_precision", "no"]
    process = start([*launch, *phase(tiny_file, data, tmp_path / "out")])
    _, errors = process.communicate(timeout=120)
    assert "accelerate started one process: without MPI its --cpu never starts more" in errors
    assert open_checkpoint(tmp_path / "out").siblings


@pytest.mark.parametrize(
    ("name", "setting", "reason"),
    [
        (
            "cognate",
            "cognate.trunk.batch_rows=3",
            "trunk: batch_rows=3 is not a multiple of 2 processes × 1 micro-batches",
        ),
        ("cognate", "runner=ray", "runner: ray does not go with several processes"),
        ("evomerge", "runner=threads", "evomerge: several processes only train (cognate)"),
    ],
)
def test_what_two_processes_cannot_do(
    name: str, setting: str, reason: str, tiny_file: Path, data: Path, tmp_path: Path
) -> None:
    process = start(launched(*phase(tiny_file, data, tmp_path / "out", setting, name=name)))
    lines = said(process)
    assert process.returncode != 0 and reason in lines[0]
