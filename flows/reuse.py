"""A result of another run under the same cache key: linked into this run instead of being made again.

So a run that differs from an earlier one in its merge only does not train again; what a changed setting, source or
parent does not reach keeps its key, and with it its result.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from flows.stage import Say, Stage, StageRecord
from phases.checkpoint import Checkpoint, link_or_copy, open_checkpoint
from phases.errors import CheckpointError
from phases.storage import atomic_directory, write_json


def borrow(stage: Stage, runs: Path, say: Say) -> Checkpoint | None:
    """Link the finished result of exactly these inputs from another run in the folder `runs`; None without one."""
    for out, record in _candidates(stage, runs):
        try:
            if open_checkpoint(out).family_digest != record.digest:
                continue
            with atomic_directory(stage.out) as temporary:
                shutil.copytree(out, temporary, copy_function=link_or_copy, dirs_exist_ok=True)
            made = open_checkpoint(stage.out)
        except (CheckpointError, OSError):  # damaged, or being replaced just now: then it is made again
            continue
        write_json(stage.record_path, record.model_dump())
        say(f"{stage.phase.name}: made before in {out.parent}, taken from there")
        return made
    return None


def _candidates(stage: Stage, runs: Path) -> Iterator[tuple[Path, StageRecord]]:
    """Finished results with the stage's key, in the order of their names."""
    for path in sorted(runs.glob(f"*/{stage.out.name}.key.json")):
        try:
            record = StageRecord.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        out = path.with_name(stage.out.name)
        if record.key == stage.key and record.digest is not None and out != stage.out and out.is_dir():
            yield out, record
