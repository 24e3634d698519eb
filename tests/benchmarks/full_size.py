"""A few real steps of every phase at the sizes of `configs/full.yaml`, on whatever this machine has.

    python -m tests.benchmarks.full_size --out checkpoints/full-size [--results docs/results/full-size]

It proves that the shapes go through every phase, and what memory that takes at these cut batches, not quality: the
models have the full width, depth, vocabulary, row length, thought length and codebooks, and are trained for a handful
of steps on a handful of rows. At the profile's own batches more memory is needed, which is not measured. Every phase is
`forge phase` in a process of its own, whose peak memory the system tells; its gates are judged like any other's and are
expected to fail. What a phase needed is kept in the folder, so the same command goes on after an interruption. Cost:
about an hour on two cores. What stands for the run on a GPU until one is to be had.
"""

import argparse
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FULL = Path(__file__).parents[2] / "configs" / "full.yaml"
PHASES = ("cognate", "evomerge", "quiet_star", "bitnet", "forge", "baking", "adas", "compression")
TRAINING = {"steps": 2, "batch_rows": 2}
STEPS: dict[str, Any] = {
    "data": {
        "sources": [{"kind": "embedded", "max_bytes": 9_000_000}],
        "tokenizer_bytes": 9_000_000,
        "tasks": {
            **{"reasoning_train_items": 3000, "memory_train_items": 3000, "copying_train_items": 1500},
            **{"validation_items": 64, "test_items": 64, "choice_items": 16},
        },
    },
    "cognate": {"trunk": TRAINING, "branch": TRAINING, "on_fail": "rollback"},
    "evomerge": {
        **{"population": 8, "generations": 2, "searches": 1, "validation_items": 8, "validation_blocks": 2},
        **{"finalists": 1, "final_items": 8, "final_blocks": 2},
    },
    "quiet_star": {"thoughts": {"positions": 4}, "training": TRAINING},
    "bitnet": {"training": TRAINING},
    "forge": {"training": {**TRAINING, "steps": 10}, "validation_items": 8, "validation_blocks": 2},
    "baking": {
        "scenarios": {
            "train": {"python": 24, "retrieve": 24, "search": 24, "memory": 24, "persona": 24},
            "held_out": 4,
        },
        **{"teaching": TRAINING, "training": TRAINING, "sampling": {"conversations": 8}},
    },
    "adas": {
        **{"lessons": 8, "library": 4, "finalists": 1, "final_units": 2, "search_turns": 1},
        "experts": {"training": TRAINING},
        "composition": {"population": 4, "iterations": 1, "trials": 2},
        "search": {"population": 4, "singles": 4, "iterations": 1, "rungs": [2, 4]},
    },
    "compression": {
        **{"training": {"steps": 4, "batch_rows": 2}, "ratios": [20.0], "lessons": 16},
        "codecs": {"thresholds": [0.8], "vectors": [8], "hyper_bits": [3]},
        **{"calibration_rows": 2, "standing_rows": 4},
    },
    "evaluation": {
        **{"items": 8, "choices": 4, "copies": 8, "blocks": 4, "batch": 8, "thought_rows": 2, "thought_positions": 2},
        **{"thought_items": 4, "thought_lengths": [32], "zero_shot_items": 4, "recall_conversations": 2},
        **{"stable_turns": 2, "trials": 4},
    },
}
"""What is cut against the full profile: how long, on how much, and how much at once; never the size of a tensor of the
model."""


def main() -> None:
    """Run the phases one after another and write what each needed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.full_size")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--results", type=Path, help="also write PATH.json and PATH.md")
    parser.add_argument("--note", default="", help="a sentence for the document, e.g. what else the machine did")
    parser.add_argument("--only", default=",".join(PHASES), help="phases, in the chain's order")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = arguments.out / "full-size.yaml"
    config.write_text(yaml.safe_dump(merged(yaml.safe_load(FULL.read_text()), STEPS)))
    kept = arguments.out / "rows.json"
    known: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for name in arguments.only.split(","):
        if name not in known:
            # What is there was not measured to its end, and resuming it would take a part of the time.
            for left in (*arguments.out.glob(f"{name}.*"), arguments.out / name):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            known[name] = step(name, config, arguments.out)
            kept.write_text(json.dumps(known, indent=1) + "\n")
        print(json.dumps(known[name]), flush=True)
    rows = [known[name] for name in PHASES if name in known]
    if arguments.results is not None:
        made = {"device": "cpu", "cores": os.cpu_count(), "note": arguments.note, "cut": STEPS, "phases": rows}
        arguments.results.with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")
        arguments.results.with_suffix(".md").write_text(written(rows, arguments.note))


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, key by key."""
    both = {k: merged(base[k], v) for k, v in over.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **over, **both}


def step(name: str, config: Path, out: Path) -> dict[str, Any]:
    """One phase in a process of its own; exits with its message when it neither passes nor fails its gates."""
    before = PHASES[PHASES.index(name) - 1] if name != PHASES[0] else None
    inputs = ["--input", str(out / before)] if before else []
    command = ["-m", "flows.cli", "phase", name, "--config", str(config), *inputs, "--out", str(out / name), "--json"]
    started = time.monotonic()
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        sys.exit(f"{name}: exit code {process.returncode}")
    judged = json.loads(printed)
    shapes = stored(out / name / "model.safetensors")
    return {
        "phase": name,
        "seconds": round(time.monotonic() - started),
        "peak_rss_bytes": usage.ru_maxrss * 1024,
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
        "tensors": len(shapes),
        "largest": max(shapes.values(), key=math.prod),
        "bytes_on_disk": sum(p.stat().st_size for p in (out / name).iterdir() if p.is_file()),
        "gates": len(judged["gates"]),
        "gates_passed": sum(gate["passed"] for gate in judged["gates"]),
    }


def stored(path: Path) -> dict[str, list[int]]:
    """Shapes of a safetensors file by tensor, read from its header alone."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def cut_batches() -> str:
    """What is done at once, in the profile and here: what memory depends on besides the sizes of the model."""
    full = yaml.safe_load(FULL.read_text())
    rows, fewer = (list(values(config, "batch_rows")) for config in (full, STEPS))
    positions, less = (config["quiet_star"]["thoughts"]["positions"] for config in (full, STEPS))
    rows_of, thoughts_of = f"{max(fewer)} rows a step instead of up to {max(rows)}", f"{less} instead of {positions}"
    return f"{rows_of}, thoughts at {thoughts_of} positions of a row"


def values(config: dict[str, Any], key: str) -> Iterator[Any]:
    """What stands under a key anywhere in a config."""
    for name, value in config.items():
        if name == key:
            yield value
        elif isinstance(value, dict):
            yield from values(value, key)


def written(rows: list[dict[str, Any]], note: str) -> str:
    """The document: what was run, what was cut, what each phase needed."""
    lines = [
        "# The full profile, a few steps on a CPU",
        "",
        "No GPU was to be had. These are real steps of every phase at the sizes of `configs/full.yaml` (width,",
        "depth, vocabulary, length of rows and thoughts, group, codebook), made by",
        "`python -m tests.benchmarks.full_size`. They prove shapes, and memory at these cut batches:",
        f"{cut_batches()}.",
        "At the profile's own batches it takes more, which was not measured. They prove nothing about quality: the",
        "models are as good as untrained, and their gates fail.",
        "",
        *([note, ""] if note else []),
        "| phase | seconds | peak memory, GiB | weights | tensors | largest | on disk, MB | gates passed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        largest = " × ".join(str(n) for n in r["largest"])
        lines.append(
            f"| {r['phase']} | {r['seconds']} | {r['peak_rss_bytes'] / 2**30:.1f} | {r['parameters']:,} | "
            f"{r['tensors']} | {largest} | {r['bytes_on_disk'] / 1e6:.1f} | {r['gates_passed']} of {r['gates']} |"
        )
    return "\n".join([*lines, "", "Cut against the profile:", "", "```yaml", yaml.safe_dump(STEPS).rstrip(), "```", ""])


if __name__ == "__main__":
    main()
