"""Projects and outcomes in PostgreSQL, on a server that the test starts: what was only known of sqlite."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.pool import NullPool

from deployment.feedback.outcome import Outcome
from deployment.feedback.store import OutcomeStore
from distillation.project.portfolio import open_projects
from phases.errors import InputError, StorageError

INITDB = shutil.which("initdb") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
pytestmark = pytest.mark.skipif(INITDB is None, reason="PostgreSQL is not installed (Debian: postgresql)")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A URL of a database on a fresh server; it refuses to run as root, so it runs as nobody there."""
    assert INITDB is not None
    folder = Path(tempfile.mkdtemp(prefix="forge-postgresql-", dir="/tmp"))
    who = {} if os.getuid() else {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid}
    if who:
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    (folder / "password").write_text("s3cret\n")
    (folder / "password").chmod(0o644)
    port, binaries, data = free_port(), Path(INITDB).resolve().parent, str(folder / "data")
    make = [str(binaries / "initdb"), "-D", data, "-U", "forge", "-A", "scram-sha-256"]
    subprocess.run(
        [*make, "--pwfile", str(folder / "password"), "--no-sync", "-E", "UTF8", "--locale", "C"],
        check=True,
        capture_output=True,
        cwd="/",
        **who,  # type: ignore[call-overload]
    )
    options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(binaries / "postgres"), "-D", data, "-p", str(port), *options],
            stdout=log,
            stderr=log,
            cwd="/",
            **who,  # type: ignore[call-overload]
        )
    url = f"postgresql+psycopg://forge:s3cret@127.0.0.1:{port}/postgres"
    try:
        for _ in range(100):
            try:
                sqlalchemy.create_engine(url, poolclass=NullPool).connect().close()
                break
            except sqlalchemy.exc.OperationalError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        shutil.rmtree(folder)


def outcome(number: int) -> Outcome:
    at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=number)
    system = {"model": "org/m", "accelerator": "l4", "engine": "vllm", "prompt_tokens": 100, "output_tokens": 50}
    measured = {"concurrency": 8, "predicted_tpot": 0.05, "observed_tpot": 0.05 + number / 1000, "observed_at": at}
    return Outcome.parse({**system, **measured}, "test")


def test_outcomes_of_several_writers_come_back_in_order(server: str) -> None:
    def write(start: int) -> None:
        store = OutcomeStore(server)
        for number in range(start, 40, 4):
            store.add(outcome(number))
        store.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    store = OutcomeStore(server)
    assert store.read() == [outcome(number) for number in range(40)]
    assert store.read(since=outcome(38).observed_at) == [outcome(38), outcome(39)]
    assert store.systems() == ["org/m on l4 (vllm)"]
    store.close()


def test_a_project_goes_its_way(server: str) -> None:
    projects = open_projects(server)
    project = projects.begin("support", teacher="big", teacher_digest="t1")
    project.move("distilling", "first night", "report.json")
    with project.begin_night() as night:
        project.record_student("a", night.number, "path", teachers=["t1"], retention=0.97, saved_usd_per_month=120)
        project.promote("a", "passed")
        night.finish(verdict="promote", usd=3, invested_usd=23.6)
    project.record_student("b", 2, "path", teachers=["t1"])
    project.promote("b", "passed")
    back = project.roll_back("damaged")
    assert back is not None and back.digest == "a"
    again = open_projects(server)
    assert [one.digest for one in again.open("support").lineage()] == ["a"]
    assert again.portfolio().totals.invested_usd == 23.6


def test_of_two_nights_at_once_one_begins(server: str) -> None:
    open_projects(server).begin("twice", teacher="big")

    def begin(_: int) -> int | str:
        try:
            return open_projects(server).open("twice").begin_night().number
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(begin, range(4)))
    assert [one for one in found if isinstance(one, int)] == [1]
    assert all("running" in one or "under way" in one for one in found if isinstance(one, str)), found


def test_what_goes_wrong_is_one_line_without_the_password(server: str) -> None:
    for url in (server.replace("s3cret", "wr0ng"), server.replace("/postgres", "/nowhere")):
        with pytest.raises(StorageError) as seen:
            OutcomeStore(url).read()
        assert "\n" not in str(seen.value) and "s3cret" not in str(seen.value) and "wr0ng" not in str(seen.value)
    with pytest.raises(StorageError, match="refused"):
        open_projects("postgresql+psycopg://forge:s3cret@127.0.0.1:9/postgres")
