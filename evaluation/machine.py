"""The machine that a figure was measured on."""

import os
import platform
from pathlib import Path

import psutil
import torch


def describe_machine() -> dict[str, str | int | float | None]:
    """Processor, cores, memory, accelerator, Python, torch; None for what is not there."""
    cuda = torch.cuda.is_available()
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name(0) if cuda else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """The model name of the first core; the architecture where the system does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
