"""Run by tests/flows/test_accelerate.py, alone or in several processes: the cognate phase with the loss of every step.

python tests/flows/curves_program.py DATA OUT CONFIG.json    # writes OUT.curves.json
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from phases.cognate.config import CognateConfig
from phases.cognate.run import run
from phases.dataset import open_dataset
from phases.training import loop
from phases.training.processes import is_main, joined


def main(data: str, out: str, config: str) -> None:
    """Train all five models and write their curves."""
    torch.set_num_threads(1)
    loop.LOG_EVERY = 1
    curves: dict[str, list[float]] = {}

    def keep(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if name.endswith("/loss"):
                curves.setdefault(name.removesuffix("/loss"), []).append(value)

    with joined():
        run([], CognateConfig(**json.loads(Path(config).read_text())), Path(out), data=open_dataset(data), metrics=keep)
    if is_main():
        Path(f"{out}.curves.json").write_text(json.dumps(curves))


if __name__ == "__main__":
    main(*sys.argv[1:])
