"""Several processes of one training, as `accelerate launch` starts them: one is the main one, the others help it train.

    accelerate launch --multi_gpu --num_processes 2 -m flows.cli phase cognate --out DIR

Every process computes its share of each batch. Whatever writes to the disk, holds a lock or decides is done by the main
process alone (`on_main`), and its answer is given to the others, so that none of them acts on another file than the
main process saw. All read from the same storage. Started in the usual way there is one process, and everything here is
a plain call.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object

from phases.errors import ConfigError, ForgeError, TrainingError

T = TypeVar("T")
PATIENCE = timedelta(hours=2)
"""How long a process waits for one that lives but does not answer (a dead one is noticed at once): a large corpus takes
the main process longer to prepare than torch's own 10 to 30 minutes."""


class StoppedByMain(ForgeError):
    """The main process stopped; it says why and gives the exit code."""

    exit_code = 0


def group() -> Any:
    """Accelerate's state of this process; the first call joins the others."""
    # Unless told, accelerate takes the processes of a machine without an accelerator for unrelated ones.
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true") or not torch.accelerator.is_available()
    return PartialState(cpu=on_cpu, timeout=PATIENCE)


def device() -> torch.device:
    """Where this process measures and asks: its CUDA device if it has one, else the CPU (others have no float64)."""
    where: torch.device = group().device
    return where if where.type == "cuda" else torch.device("cpu")


def several() -> bool:
    """Whether this process is one of several."""
    return bool(group().num_processes > 1)


def is_main() -> bool:
    """Whether this is the process that writes."""
    return bool(group().is_main_process)


def open_accelerator() -> Any:
    """Accelerate's view of the devices. Raises `ConfigError` when the launcher was given a precision of its own."""
    if several() and os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
        raise ConfigError(
            "accelerate launch: precision belongs to the config; give --mixed_precision no, and "
            "--set cognate.trunk.precision=bf16 if you want it"
        )
    return Accelerator()


def on_main(work: Callable[[], T]) -> T:
    """What `work` returns in the main process, in every process. When it raises there, the others stop too."""
    if not several():
        return work()
    answer: list[Any] = [False, None]
    try:
        if is_main():
            answer = [True, work()]
    except BaseException:
        with contextlib.suppress(RuntimeError):  # the reason to stop is the one above, also if the others are gone
            broadcast_object_list(answer)
        raise
    broadcast_object_list(answer)
    if not answer[0]:
        raise StoppedByMain("the main process stopped; its own line says why")
    value: T = answer[1]
    return value


def check_same(what: str, value: object) -> None:
    """Raise `TrainingError` unless every process has the same value; nobody goes on before all have been asked."""
    if several():
        values = gather_object([value])
        if len(set(values)) > 1:
            raise TrainingError(
                f"{what} differs between the processes ({', '.join(map(str, values))}); --out must lie on storage that "
                "all of them share"
            )


def rand_rows(rows: int) -> torch.Tensor:
    """(rows, 1, 1) uniform draws for this process's rows of a batch: those that one process would draw for them."""
    count, index = group().num_processes, group().process_index
    return torch.rand(rows * count, 1, 1)[index::count]


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """The part of a program that all processes go through together; afterwards the others may leave.

    Raises `TrainingError` when one of the others is lost.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        raise TrainingError(
            "another process of this training has stopped; its own line says why; the same command resumes"
        ) from error
    group().destroy_process_group()
