"""A training step of Quiet-STaR, forward and backward: ours against the reference algorithm (arXiv 2403.09629).

    python -m tests.benchmarks.thoughts ours fp32     bytes that one step of one side holds at its peak

Same weights, text and precision on both sides, the paper's loss, thoughts at all positions, on the CPU. Memory is
measured in a fresh process for each step (Linux): what its peak rises above what the process held just before. A step
on a few tokens goes ahead of it and loads what PyTorch loads once.
"""

import gc
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from transformers import LlamaForCausalLM

from phases.cognate.shape import PRESETS, llama_config
from phases.quiet_star.config import QuietStarConfig
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.objective import QuietStar
from phases.quiet_star.thinker import Thinker
from phases.training.objective import Objective
from tests.benchmarks.pairs import Comparison, compare
from tests.benchmarks.quiet_star_reference import QuietStarReference

Side = Literal["ours", "reference", "checkpointed", "sampled"]
"""`checkpointed` and `sampled` are ours with activations computed again in backward, and with `FEW` positions."""
VOCABULARY, ROWS, TIME = 2048, 2, 256
"""Rows as long as those of the default data set and of the paper."""
THOUGHTS: dict[str, Any] = {"tokens": 8, "samples": 2, "positions": None, "ahead": 4}
FEW = 32
"""Positions of a row that think where not all do: the phase's default."""
TARGET = 2.0
"""Half the time and half the memory."""


def objective(side: Side) -> Objective:
    """What a step minimises, over the same weights whatever the side."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(llama_config(PRESETS["embedded"], VOCABULARY, 0)).train()
    if side == "checkpointed":
        model.activation_checkpointing_enable({"use_reentrant": False})
    positions = FEW if side == "sampled" else None
    config = QuietStarConfig.parse(
        {"thoughts": {**THOUGHTS, "positions": positions}, "fluency": 0.0, "alone_after": 0.0}, "bench"
    )
    thinker = Thinker(model, MixingHead(model.config.hidden_size), VOCABULARY - 2, VOCABULARY - 1)
    return QuietStarReference(thinker, config) if side == "reference" else QuietStar(thinker, config)


def step(made: Objective, precision: str, length: int = TIME) -> None:
    """One forward and backward pass, always over the same text."""
    made.zero_grad()
    tokens = torch.randint(0, VOCABULARY - 2, (ROWS, length + 1), generator=torch.Generator().manual_seed(0))
    weight = torch.full((ROWS, length), 1 / length)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        # As late in training as can be: no part of the step is still being warmed up.
        loss = made(tokens, weight, 1.0)
    loss.backward()


def resident_bytes(what: Literal["VmRSS", "VmHWM"]) -> int:
    """What this process holds, or its peak. `ru_maxrss` would not do: a child inherits the peak of its parent."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, what
    return 1024 * int(found[1])


def step_bytes(side: Side, precision: str) -> int:
    """Bytes that a step adds to this process at its peak; to be called once in a process."""
    made = objective(side)
    step(made, precision, length=16)
    gc.collect()
    before = resident_bytes("VmRSS")
    step(made, precision)
    return resident_bytes("VmHWM") - before


def fresh_step_bytes(side: Side, precision: str) -> int:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.thoughts", side, precision]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def speed(side: Side, other: Side, precision: str, pairs: int) -> Comparison:
    """Text that two sides train on in a second."""
    first, second = objective(side), objective(other)
    return compare(
        f"Quiet-STaR step, time, {precision}", "text tokens/s", ROWS * TIME,
        lambda: step(first, precision), other, lambda: step(second, precision), target=TARGET, pairs=pairs,
    )  # fmt: skip


def memory(side: Side, other: Side, precision: str, pairs: int) -> Comparison:
    """Steps that two sides fit in a GiB."""
    measured = [(fresh_step_bytes(side, precision), fresh_step_bytes(other, precision)) for _ in range(pairs)]
    ratios = [theirs / own for own, theirs in measured]
    return Comparison(
        name=f"Quiet-STaR step, memory, {precision}",
        unit="steps/GiB",
        ours=2**30 / statistics.median(own for own, _ in measured),
        other=2**30 / statistics.median(theirs for _, theirs in measured),
        other_name=other,
        ratio=statistics.median(ratios),
        ratio_range=(min(ratios), max(ratios)),
        target=TARGET,
        pairs=pairs,
    )


def run(pairs: int) -> list[Comparison]:
    """Ours against the reference: time and memory, in both precisions."""
    return [
        measure("ours", "reference", precision, pairs) for precision in ("fp32", "bf16") for measure in (speed, memory)
    ]


def options(pairs: int) -> dict[str, dict[str, float]]:
    """Speed and memory of what a config can also ask for, as shares of those of ours at its plainest."""
    sides: tuple[Side, ...] = ("checkpointed", "sampled")
    return {
        side: {
            "time": round(1 / speed(side, "ours", "fp32", pairs).ratio, 2),
            "memory": round(1 / memory(side, "ours", "fp32", pairs).ratio, 2),
        }
        for side in sides
    }


if __name__ == "__main__":
    asked: Any = sys.argv[1]
    assert asked in get_args(Side), f"one of {get_args(Side)}"
    print(step_bytes(asked, sys.argv[2]))
