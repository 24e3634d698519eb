"""From files to a data set: reading and the whole of `curate`, a million records of 80 words.

    python -m tests.benchmarks.curation [--records 1000000]
    python -m tests.benchmarks --only curation

Questions of 60 words and answers of 20, with near copies as in `near_duplicates.py`; half of the questions have a
number, one in 20 a mail address, one in 50 a telephone number; one answer in 1,000 holds one of 1,000 sealed questions.
Reading and curating run in a process of their own, whose processor time (all threads) and peak memory are measured.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.near_duplicates import planted

SEALED, QUESTION_WORDS, SHORTEST_LEAK = 1_000, 60, 13
STEPS = {
    "personal data": "_redacted",
    "order": "in_order",
    "exact duplicates": "drop_duplicates",
    "quality": "keep_good",
    "near-duplicates": "_unlike",
    "decontamination": "decontaminate",
    "balance": "balance",
    "second look": "check_no_leak",
}
"""The functions of `distillation.curation.curate` that are timed."""


def run(records: int = 1_000_000) -> dict[str, Any]:
    """Figures of one run over this many records."""
    with tempfile.TemporaryDirectory() as folder:
        for what in ("write", "measure"):
            command = [
                sys.executable,
                "-m",
                "tests.benchmarks.curation",
                "--records",
                str(records),
                f"--{what}",
                folder,
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def sealed_questions() -> list[tuple[str, ...]]:
    """Questions of 4 to 59 words."""
    texts, _ = planted(SEALED, seed=7)
    return [(" ".join(text.split()[: 4 + i % 56]),) for i, text in enumerate(texts)]


def write(path: Path, records: int) -> None:
    """The records as a file of JSON lines."""
    rng = np.random.default_rng(2)
    leaks = [text for (text,) in sealed_questions() if text.count(" ") + 1 >= SHORTEST_LEAK]
    with path.open("w", encoding="utf-8") as file:
        for text in planted(records, seed=1)[0]:
            words = text.split()
            asked, answer = words[:QUESTION_WORDS], " ".join(words[QUESTION_WORDS:])
            place, chance = rng.integers(0, QUESTION_WORDS, 3), rng.random(4)
            if chance[0] < 1 / 2:
                asked[place[0]] = str(rng.integers(2_000))
            if chance[1] < 1 / 20:
                asked[place[1]] = f"{words[0]}@example.org"
            if chance[2] < 1 / 50:
                asked[place[2]] = "+49 30 901820"
            if chance[3] < 1 / 1_000:
                answer += " " + leaks[rng.integers(len(leaks))]
            group = "abcdefgh"[min(7, int(rng.exponential(1.4)))]
            row = {"prompt": " ".join(asked) + "?", "completion": answer.capitalize() + ".", "group": group}
            file.write(json.dumps(row) + "\n")


def measured(path: Path) -> dict[str, Any]:
    """One run in this process."""
    from distillation.curation import curate
    from distillation.curation.config import CurationConfig
    from distillation.records.reading import read_records

    sealed, seconds = sealed_questions(), dict[str, float]()
    read = _timed("reading", read_records, seconds)(path, path.with_name("quarantine.jsonl"))
    for name, function in STEPS.items():
        setattr(curate, function, _timed(name, getattr(curate, function), seconds))
    curated = _timed("all steps", curate.curate, seconds)(read.records, sealed, CurationConfig(), 0)
    total = seconds["reading"] + seconds["all steps"]
    return {
        "records": len(read.records),
        "processor_seconds": round(total, 1),
        "ms_a_record": round(1000 * total / len(read.records), 3),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, 2),
        "shares": {name: round(seconds[name] / total, 3) for name in ("reading", *STEPS)},
        "removed": {step.name: step.before - step.after for step in curated.steps},
        "personal_data": dict(curated.steps[0].findings),
    }


def _timed(name: str, function: Callable[..., Any], seconds: dict[str, float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        result = function(*args, **kwargs)
        seconds[name] = time.process_time() - start
        return result

    return timed


def main() -> None:
    """Without a folder: a whole run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path, help="write the records to this folder")
    parser.add_argument("--measure", type=Path, help="measure on the records in this folder")
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write / "records.jsonl", arguments.records)
    elif arguments.measure:
        print(json.dumps(measured(arguments.measure / "records.jsonl")))
    else:
        print(json.dumps(run(arguments.records), indent=2))


if __name__ == "__main__":
    main()
