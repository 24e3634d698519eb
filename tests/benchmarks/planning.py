"""How long the planner takes: import, one estimate, the offers, the whole atlas on all hardware.

    python -m tests.benchmarks --only planning

Medians, in seconds of this process's own processor time; the import in processes of their own.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

USES = ("chat", "rag", "batch", "code_agent")


def run(rounds: int) -> dict[str, float]:
    """Seconds by name."""
    from deployment import Load, Request, Serving, accelerator, estimate, find_model, offers, recommend

    model, card, load = find_model("Qwen/Qwen3-32B"), accelerator("h100-sxm"), Load(1024, 256, concurrency=16)
    found = {
        "import": _imported(rounds),
        "one estimate": _median(rounds, lambda: estimate(model, card, Serving(tp=2), load)),
        "offers of one accelerator": _median(rounds, lambda: offers(accelerators=["h100-sxm"])),
    }
    for use in USES:
        request = Request.parse({"use_case": use, "traffic": {"users": 500}}, "benchmark")
        found[f"atlas on all offers, {use}"] = _median(rounds, lambda asked=request: recommend(asked))  # type: ignore[misc]
    return {name: round(seconds, 5) for name, seconds in found.items()}


def _median(rounds: int, work: Callable[[], Any]) -> float:
    """One unmeasured call, then the rounds."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds[1:])


def _imported(rounds: int) -> float:
    code = "import time; t = time.process_time(); import deployment; print(time.process_time() - t)"
    told = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(rounds)]
    return statistics.median(float(done.stdout) for done in told)
