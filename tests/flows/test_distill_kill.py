"""A whole night that is killed again and again ends as one that is left alone: students, answers, verdicts."""

import os
import random
import signal
import subprocess
import sys
from typing import Any

import pytest

from distillation.project.portfolio import open_projects
from evaluation.report import read_report
from flows.distill_parameters import ProjectConfig
from flows.distill_report import DATABASE
from flows.parameters import ForgeConfig
from phases.checkpoint import open_checkpoint
from tests.flows.test_distill_flow import SETTINGS

NIGHT = """
import os, signal, sys
from pathlib import Path
from flows.quiet import settle_environment
settle_environment()
from flows import night_sizes
from flows.distill_flow import distill
from flows.distill_parameters import ProjectConfig
from evaluation.latency import decode_timed
quick = lambda path: decode_timed(path, tokens=4, repeats=1)
night_sizes.measure_beside = lambda *paths: tuple(map(quick, paths))
sync, done, last = os.fsync, 0, int(sys.argv[2])

def counted(descriptor):
    global done
    done += 1
    if done == last:
        os.killpg(0, signal.SIGKILL)  # with Prefect's server, as a machine that goes down does
    return sync(descriptor)

os.fsync = counted
state = distill(ProjectConfig.model_validate_json(Path(sys.argv[1]).read_text()), return_state=True)
print(done, state.name)
"""
KILLS = 4
TIMED = {"saves enough"}
"""Gates on a measured time."""


def night(config: ProjectConfig, last: int = 0) -> tuple[int, str] | None:
    """(files that were made sure of, the state that the night ended in); None: killed before the `last` of them."""
    file = config.out / f"{config.project}.json"
    file.write_text(config.model_dump_json())
    process = subprocess.run(
        [sys.executable, "-c", NIGHT, str(file), str(last)],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if process.returncode == -signal.SIGKILL:
        return None
    assert process.returncode == 0, process.stderr[-2000:]
    count, state = process.stdout.splitlines()[-1].split()
    return int(count), state


def found(config: ProjectConfig) -> dict[str, Any]:
    """All that does not depend on how long something took."""
    folder = config.folder / "night-0001"
    (phase,) = read_report(folder).phases
    return {
        "digests": [open_checkpoint(folder / name).digest for name in ("student", "baseline")],
        "metrics": [(metric.name, metric.value) for metric in phase.metrics],
        "gates": [(gate.name, gate.value, gate.passed) for gate in phase.gates if gate.name not in TIMED],
        "verdicts": phase.tables["verdicts"].rows,
        "data": phase.tables["data"].rows,
    }


@pytest.mark.slow
def test_a_night_that_is_killed_ends_as_one_that_is_left_alone(copy: ForgeConfig) -> None:
    whole, broken = (
        ProjectConfig.parse({**SETTINGS, "project": name, "out": str(copy.out)}, "test") for name in ("whole", "broken")
    )
    ended = night(whole)
    assert ended is not None
    writes, state = ended
    # What was done is not done again, so a moment of the whole night may come too late for what is left of it.
    draw = random.Random(11)
    kills = sum(night(broken, draw.randint(1, writes // KILLS)) is None for _ in range(KILLS))
    if not (broken.folder / "last.json").exists():
        again = night(broken)
        assert again is not None and again[1] == state
    assert kills > 1 and found(broken) == found(whole)
    (first, *_) = open_projects(copy.out / DATABASE).open("broken").nights()
    assert first.status == "finished" and first.interruptions
