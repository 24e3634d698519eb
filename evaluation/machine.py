"""The machine that a figure was measured on."""

import os
import platform
import time
from pathlib import Path

import psutil
import torch

MATMUL_SIZE, MATMUL_ROUNDS = 1024, 15


def describe_machine() -> dict[str, str | int | float | None]:
    """Processor, cores, their speed, memory, accelerator, Python, torch; None for what is not there."""
    cuda = torch.cuda.is_available()
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "matmul_gflop_s": round(matmul_speed() / 1e9, 1),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name(0) if cuda else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def matmul_speed() -> float:
    """FLOP/s of the processor at a float32 matrix product, the best of several: what is busy beside only slows.

    Machines with the same name and number of cores differ by a factor of five, and a run's seconds with them.
    """
    left, right = torch.ones(MATMUL_SIZE, MATMUL_SIZE), torch.ones(MATMUL_SIZE, MATMUL_SIZE)
    seconds = []
    for _ in range(MATMUL_ROUNDS):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * MATMUL_SIZE**3 / min(seconds)


def _processor() -> str:
    """The model name of the first core; the architecture where the system does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
