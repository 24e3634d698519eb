"""One phase on given checkpoints, outside a run: what `forge phase` opens and makes.

Under `accelerate launch` all processes come here. The main one reads the inputs, holds the lock and prepares the data;
the others get what it found.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from flows.chain import find_phase
from flows.console import say
from flows.parameters import ForgeConfig, Runner
from flows.processes import with_processes
from flows.runs_folder import hold
from flows.stage import Stage
from phases.checkpoint import Checkpoint, open_checkpoint
from phases.dataset import Dataset
from phases.errors import ConfigError, StorageError
from phases.storage import explain_os_errors
from phases.training.processes import on_main, several

TRAINED = ("cognate",)
"""Phases that several processes can make together."""


def open_stage(
    name: str,
    inputs: Sequence[Path],
    config: ForgeConfig,
    out: Path,
    data: Callable[[], Dataset],
    held: contextlib.ExitStack,
) -> Stage:
    """The stage of a phase at `out`, which is locked until `held` is closed, with the data prepared.

    Raises `ConfigError` for what several processes cannot do, `StorageError` when `out` is taken.
    """
    phase = find_phase(name)
    _check_processes(phase.name, config.runner)
    parents = tuple(open_checkpoint(path) for path in inputs)
    with explain_os_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    held.enter_context(hold(out.with_name(f".{out.name}.lock")))
    stage = Stage(phase, config.section(phase.name), parents, data(), out)  # type: ignore[arg-type]
    if out.exists() and stage.record() is None:
        raise StorageError(f"{out}: exists and is not from these inputs; choose another --out or delete it")
    return stage


def make(stage: Stage, runner: Runner) -> Checkpoint:
    """What the stage made before, or makes now with its independent jobs on the runner."""
    done = on_main(lambda: stage.finished(say))
    if done is not None:
        return done
    if runner == "threads":
        return stage.run()
    if runner == "processes":
        return with_processes(lambda pool: stage.run(pool=pool))
    # Imported here: Prefect takes seconds that a phase without a cluster need not wait.
    from flows.pools import with_pool
    from flows.serverless import served

    with served():
        return with_pool(runner, lambda pool: stage.run(pool=pool))


def _check_processes(phase: str, runner: Runner) -> None:
    if several():
        if phase not in TRAINED:
            raise ConfigError(f"{phase}: several processes only train ({', '.join(TRAINED)}); start one process")
        if runner != "threads":
            raise ConfigError(f"runner: {runner} does not go with several processes; set runner=threads")
    elif "MASTER_PORT" in os.environ and "ACCELERATE_USE_CPU" in os.environ:
        say(
            "accelerate started one process: without MPI its --cpu never starts more. For several on the CPU: "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N …"
        )
