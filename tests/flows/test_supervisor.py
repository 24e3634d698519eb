"""Services start in order, are started again, end with everything they started, and say why they did not start."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows import supervisor
from flows.supervisor import Service, end_leftovers, end_processes, family, remember
from phases.errors import InputError

IGNORES_SIGTERM = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)"
)
HAS_A_CHILD = (
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "time.sleep(60)"
)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[Service]]:
    """Services that are ended whatever happens."""
    services: list[Service] = []
    yield services
    for service in services:
        for process in family(service.process):
            process.kill()
        if service.process is not None:
            service.process.wait(10)


def service(made: list[Service], tmp_path: Path, code: str, health: str | None = None) -> Service:
    new = Service("clock", [sys.executable, "-c", code], dict(os.environ), tmp_path / "logs" / "clock.log", health)
    made.append(new)
    return new


def until(condition: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ready_when_its_address_answers(made: list[Service], tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = f"import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    clock = service(made, tmp_path, code, f"http://127.0.0.1:{port}/")
    clock.start()
    assert clock.alive
    clock.stop()
    assert not clock.alive


def test_one_that_dies_at_once_says_why(made: list[Service], tmp_path: Path) -> None:
    clock = service(made, tmp_path, "raise SystemExit('no hands')", "http://127.0.0.1:9/")
    with pytest.raises(InputError, match=r"clock did not start: no hands; see .*clock\.log"):
        clock.start()


def test_one_that_never_answers_is_given_up(
    made: list[Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "START_SECONDS", 0.5)
    with pytest.raises(InputError, match="clock did not answer within"):
        service(made, tmp_path, "import time; time.sleep(60)", "http://127.0.0.1:9/").start()


def test_dead_one_is_started_again(made: list[Service], tmp_path: Path) -> None:
    clock = service(made, tmp_path, "import time; time.sleep(60)")
    clock.start()
    assert clock.process is not None and not clock.revive()
    first = clock.process
    first.kill()
    first.wait(10)
    assert clock.revive() and clock.alive and clock.process.pid != first.pid


@pytest.mark.skipif(sys.platform != "linux", reason="sessions as on Linux")
def test_one_that_was_killed_leaves_no_child_behind(made: list[Service], tmp_path: Path) -> None:
    clock = service(made, tmp_path, HAS_A_CHILD)
    clock.start()
    until(lambda: len(family(clock.process)) == 2)
    first, child = family(clock.process)
    first.kill()
    until(lambda: not clock.alive)
    assert clock.revive()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)  # it would keep its port


def test_one_that_keeps_dying_is_given_up(made: list[Service], tmp_path: Path) -> None:
    clock = service(made, tmp_path, "print('out of springs')")
    clock.start()
    with pytest.raises(InputError, match="clock keeps dying: out of springs"):
        for _ in range(10):
            until(lambda: not clock.alive)
            clock.revive()


def test_one_that_ignores_sigterm_is_killed(made: list[Service], tmp_path: Path) -> None:
    clock = service(made, tmp_path, IGNORES_SIGTERM)
    clock.start()
    until(lambda: clock.log.read_text() == "up\n")
    began = time.monotonic()
    clock.stop(grace=0.5)
    assert not clock.alive and time.monotonic() - began >= 0.5


def test_descendants_go_too(made: list[Service], tmp_path: Path) -> None:
    clock = service(made, tmp_path, HAS_A_CHILD)
    clock.start()
    until(lambda: len(family(clock.process)) == 2)
    _, child = family(clock.process)
    clock.stop(grace=0.5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_session_of_its_own(made: list[Service], tmp_path: Path) -> None:
    clock = service(made, tmp_path, "import time; time.sleep(60)")
    clock.start()
    assert clock.process is not None
    assert os.getsid(clock.process.pid) == clock.process.pid != os.getsid(0)  # Ctrl-C does not reach it


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_dies_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path; from flows.supervisor import Service\n"
        "s = Service('x', [sys.executable, '-c', 'import time; time.sleep(60)'], dict(os.environ), Path(sys.argv[1]))\n"
        "s.start(); print(s.process.pid, flush=True); time.sleep(60)"
    )
    parent = psutil.Popen([sys.executable, "-c", program, str(tmp_path / "log")], stdout=-1)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_leftovers_of_a_killed_supervisor_are_ended(made: list[Service], tmp_path: Path) -> None:
    clock = service(made, tmp_path, "import time; time.sleep(60)")
    clock.start()
    remember(tmp_path / "processes.json", [clock])
    end_leftovers(tmp_path / "processes.json")
    until(lambda: not clock.alive)


def test_another_process_of_that_number_is_left_alone(made: list[Service], tmp_path: Path) -> None:
    clock = service(made, tmp_path, "import time; time.sleep(60)")
    clock.start()
    assert clock.process is not None
    (tmp_path / "processes.json").write_text(f'{{"{clock.process.pid}": 1.0}}')
    end_leftovers(tmp_path / "processes.json")
    end_leftovers(tmp_path / "nothing.json")
    assert clock.alive


def test_nobody_left_to_end() -> None:
    end_processes([], grace=0.1)
    assert family(None) == [] and family(2**22 + 1) == []
