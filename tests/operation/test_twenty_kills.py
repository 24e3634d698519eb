"""Twenty SIGKILLs at random moments of the smoke run: every one recovers, and the weights are the same to the bit.

Every run gets up to four kills, at moments drawn uniformly over the time that the run takes when nothing happens to it;
one kill in four takes the worker too. What Prefect says of the run is then Crashed, and Retry goes on.

    pytest tests/operation/test_twenty_kills.py -m slow -s        # prints when each came and what it hit
"""

import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
KILLS, KILLS_PER_RUN, WITH_WORKER = 20, 4, 0.25
MILESTONES = {
    "run.json": "start",
    "data": "data",
    "cognate": "cognate",
    "cognate.judgement.json": "cognate's gate",
    "evomerge": "evomerge",
    "evomerge.judgement.json": "evomerge's gate",
    "quiet_star": "quiet_star",
    "quiet_star.judgement.json": "quiet_star's gate",
    "bitnet": "bitnet",
    "bitnet.judgement.json": "bitnet's gate",
    "forge": "forge",
    "forge.judgement.json": "forge's gate",
    "baking": "baking",
    "baking.judgement.json": "baking's gate",
    "adas": "adas",
    "adas.judgement.json": "adas's gate",
    "compression": "compression",
    "compression.judgement.json": "compression's gate",
    "report.json": "report",
}
"""What is being done as long as the file is not there."""


class Kill(NamedTuple):
    """What was done to a run."""

    run: str
    moment: float
    """Seconds into the undisturbed run."""
    hit: str
    with_worker: bool
    seconds: float
    """From the kill until another process worked on it."""


def doing(folder: Path) -> str:
    """What a run is at."""
    return next((work for file, work in MILESTONES.items() if not (folder / file).exists()), "end")


def disturb(servers: Any, name: str, run: str, moments: list[float], startup: float, dice: random.Random) -> list[Kill]:
    """Kill the run at these moments of its work, retry each time, and wait for its end; the kills that hit it."""
    kills: list[Kill] = []
    begun = 0.0
    for moment in moments:
        engine, with_worker, reports = servers.engine(), dice.random() < WITH_WORKER, crash_reports(servers, run)
        if psutil.wait_procs([engine], timeout=moment - begun)[0]:
            break  # the run was quicker
        hit, began = doing(servers.runs / name), time.monotonic()
        if with_worker:
            servers.kill_service("worker", "worker start", engine)
        else:
            engine.kill()
            servers.until(lambda before=reports: crash_reports(servers, run) > before, 120)
        servers.until(lambda old=engine: recovering(servers, run, old), 300)
        if servers.run(run)["state_type"] == "COMPLETED":
            break  # it had just ended
        kills.append(Kill(name, moment, hit, with_worker, time.monotonic() - began))
        begun = moment - startup  # every process has to start once more
    done = servers.wait(run, seconds=900)
    assert done["state_name"] == "RolledBack", (done["state"], kills)
    servers.until(lambda: not servers.engines(), 60)  # the next run's process must not be taken for this one's
    return kills


def crash_reports(servers: Any, run: str) -> int:
    """How many processes of the run the worker is done with.

    It reports a crash, runs the hooks, and reports it once more: a Retry in between would be called Crashed, too.
    """
    wanted = {"event": {"name": ["prefect.worker.executed-flow-run"]}, "related": {"id": [f"prefect.flow-run.{run}"]}}
    return int(servers.call("POST", "/events/filter", {"filter": wanted})["total"])


def recovering(servers: Any, run: str, old: psutil.Process) -> bool:
    """Press Retry once the run is Crashed; whether it has another process, or was over when the kill came."""
    state = servers.run(run)["state_type"]
    if state == "CRASHED":
        servers.retry(run)
    return state in ("COMPLETED", "FAILED") or any(process != old for process in servers.engines())


def test_twenty_kills_end_in_the_same_bits(servers: Any, undisturbed: Any) -> None:
    dice = random.Random(20)
    kills: list[Kill] = []
    for number in range(3 * KILLS // KILLS_PER_RUN):
        name, count = f"killed-{number}", min(KILLS_PER_RUN, KILLS - len(kills))
        moments = sorted(dice.uniform(0, undisturbed.seconds) for _ in range(count))
        run = servers.smoke(name)
        kills += disturb(servers, name, run, moments, undisturbed.startup, dice)
        assert servers.digests(name) == undisturbed.digests, kills
        assert {tracked.info.status for tracked in servers.tracked(run)} == {"FINISHED"}
        if len(kills) == KILLS:
            break
    print(f"\nundisturbed: {undisturbed.seconds:.0f} s, of which {undisturbed.startup:.0f} s to start")
    for kill in kills:
        print(f"{kill.run:<10} at {kill.moment:5.1f} s  {kill.hit:<16} worker too: {kill.with_worker!s:<5} ", end="")
        print(f"goes on after {kill.seconds:.1f} s")
    assert len(kills) == KILLS and len({kill.hit for kill in kills}) > 3 and any(kill.with_worker for kill in kills)
