"""A whole night that is killed again and again ends as one that is left alone: students, answers, verdicts."""

import os
import random
import signal
import subprocess
import sys
import time
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
import sys
from pathlib import Path
from flows.quiet import settle_environment
settle_environment()
from flows import night_sizes
from flows.distill_flow import distill
from flows.distill_parameters import ProjectConfig
from evaluation.latency import decode_timed
quick = lambda path: decode_timed(path, tokens=4, repeats=1)
night_sizes.measure_beside = lambda *paths: tuple(map(quick, paths))
print(distill(ProjectConfig.model_validate_json(Path(sys.argv[1]).read_text()), return_state=True).name)
"""
KILLS = 4
TIMED = {"saves enough"}
"""Gates on a measured time."""


def night(config: ProjectConfig, seconds: float | None = None) -> str | None:
    """The state that the night ended in; None: it was killed after so many seconds."""
    file = config.out / f"{config.project}.json"
    file.write_text(config.model_dump_json())
    process = subprocess.Popen(
        [sys.executable, "-c", NIGHT, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    assert process.returncode == 0, err[-2000:]
    return out.splitlines()[-1]


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
    began = time.monotonic()
    state = night(whole)
    seconds, draw, kills = time.monotonic() - began, random.Random(11), 0
    for _ in range(3 * KILLS):
        kills += night(broken, draw.uniform(0.3 * seconds, 0.95 * seconds)) is None
        if kills == KILLS or (broken.folder / "last.json").exists():
            break
    if not (broken.folder / "last.json").exists():
        assert night(broken) == state
    assert kills > 0 and found(broken) == found(whole)
    (first, *_) = open_projects(copy.out / DATABASE).open("broken").nights()
    assert first.status == "finished" and first.interruptions
