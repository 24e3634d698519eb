"""Nights of a project: numbered, one at a time, found when they were killed, and taken up again."""

import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sql

from distillation.project import owner as owners
from distillation.project.database import nights
from distillation.project.portfolio import open_projects
from distillation.project.project import Project
from phases.errors import InputError

KILLED = """
import os, signal, sys
from distillation.project.portfolio import open_projects
night = open_projects(sys.argv[1]).begin("support", teacher="big").begin_night()
print(night.number, night.resumed, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "out" / "distillation.db"


@pytest.fixture
def project(file: Path) -> Project:
    return open_projects(file).begin("support", teacher="big", teacher_digest="t1")


def test_nights_are_numbered_and_have_folders(project: Project) -> None:
    for number in (1, 2):
        with project.begin_night() as night:
            assert (night.number, night.resumed, night.folder) == (number, False, f"support/night-000{number}")
            night.finish(verdict="fail", data_version="d1", usd=0.1, invested_usd=2.5)
    first, second = project.nights()
    assert (first.status, first.verdict, first.data_version, first.usd, first.invested_usd) == (
        "finished", "fail", "d1", 0.1, 2.5,
    )  # fmt: skip
    assert second.alpha_spent is None and second.ended_at >= second.started_at


def test_a_night_that_is_running_is_not_begun_again(file: Path, project: Project) -> None:
    project.begin_night()
    again = open_projects(file).open("support")
    with pytest.raises(InputError, match=rf"night 1 of project 'support' is running \(process {os.getpid()}, since"):
        again.begin_night()


def test_a_killed_night_is_found_marked_and_resumed_under_its_number(file: Path, project: Project) -> None:
    said = [subprocess.run([sys.executable, "-c", KILLED, str(file)], capture_output=True, text=True) for _ in range(2)]
    assert [done.stdout.split() for done in said] == [["1", "False"], ["1", "True"]]
    assert [done.returncode for done in said] == [-signal.SIGKILL] * 2
    with project.begin_night() as night:
        assert (night.number, night.resumed) == (1, True)
        assert project.night(1).interruptions == 2 and project.night(1).reason.endswith("is gone")
        night.finish(verdict="promote")
    assert project.begin_night().number == 2


def test_an_exception_or_no_verdict_interrupts(project: Project) -> None:
    with pytest.raises(RuntimeError), project.begin_night():
        raise RuntimeError("disk\nfull")
    assert (project.night(1).status, project.night(1).reason) == ("interrupted", "RuntimeError: disk")
    with project.begin_night() as night:
        assert night.resumed
    assert project.night(1).reason == "it ended without a verdict" and project.night(1).interruptions == 2


def test_an_interrupted_night_may_be_left(project: Project) -> None:
    with project.begin_night():
        pass
    assert project.begin_night(resume=False).number == 2
    assert [night.status for night in project.nights()] == ["abandoned", "running"]


def test_a_night_of_another_machine_is_taken_over_only_on_demand(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.begin_night()
    monkeypatch.setattr(owners.socket, "gethostname", lambda: "elsewhere")
    with pytest.raises(InputError, match="cannot be seen from here; when you are sure"):
        project.begin_night()
    assert project.begin_night(take_over=True).resumed


def test_who_lost_a_night_cannot_write_its_verdict(project: Project) -> None:
    night = project.begin_night()
    with project.database.writing() as connection:
        connection.execute(nights.update().values(process_started=1.0))
    with pytest.raises(InputError, match="no longer this process's"):
        night.finish(verdict="promote", spending="{}")
    assert project.spending == "" and project.night(1).verdict == ""
    project.begin_night().finish(verdict="fail")
    with pytest.raises(InputError, match="is finished and no longer"):
        night.finish(verdict="promote")


def test_verdict_and_spent_error_rate_are_written_together(project: Project) -> None:
    with project.begin_night() as night:
        night.finish(verdict="promote", alpha_spent=0.01, spending='{"spent": 0.01}')
    with project.begin_night() as night:
        night.finish(verdict="no test")
    assert project.spending == '{"spent": 0.01}' and project.night(1).alpha_spent == 0.01


def test_a_number_that_went_to_another_process_is_not_the_owner() -> None:
    mine = owners.this_process()
    assert mine.state() == "alive" and replace(mine, started=mine.started - 60).state() == "dead"
    assert replace(mine, host="x").state() == "elsewhere"
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert replace(mine, pid=gone.pid).state() == "dead"


def _compete(file: str, begun: "multiprocessing.Queue[int]", done: "multiprocessing.Barrier") -> None:  # type: ignore[valid-type]
    try:
        begun.put(open_projects(file).begin("support", teacher="big").begin_night().number)
    except InputError:
        begun.put(0)
    done.wait(60)


def test_of_processes_that_begin_at_once_one_gets_the_night(file: Path) -> None:
    """The file does not exist yet: its tables are made in the race as well."""
    context = multiprocessing.get_context("fork")
    begun, done = context.Queue(), context.Barrier(4)
    rivals = [context.Process(target=_compete, args=(str(file), begun, done)) for _ in range(4)]
    for rival in rivals:
        rival.start()
    numbers = sorted(begun.get(timeout=60) for _ in rivals)
    for rival in rivals:
        rival.join()
    assert numbers == [0, 0, 0, 1]
    with open_projects(file).database.reading() as connection:
        assert connection.execute(sql.select(sql.func.count()).select_from(nights)).scalar() == 1
