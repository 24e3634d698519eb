"""The folder of a run: whose it is, that nobody else writes to it, and what in it is finished.

    <out>/<run>/run.json                the config; the same name with another config is refused
    <out>/<run>/data/                   prepared data
    <out>/<run>/<phase>/                the phase's checkpoint
    <out>/<run>/<phase>.key.json        cache key and digest it was finished with: the proof that it may be reused
    <out>/<run>/<phase>.judgement.json  the verdict, under its own cache key
    <out>/<run>/report.json, report.md

Correctness rests on these files alone; Prefect's and MLflow's databases may be lost.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.parameters import ForgeConfig, flatten
from flows.runs_folder import hold
from phases.errors import StorageError
from phases.storage import explain_os_errors, write_json

RUN = "run.json"
FREE = {"out", "runner", "agent", "approval", "reuse"}
"""Settings that do not change any result and may differ when a run is resumed."""


@contextlib.contextmanager
def open_run(config: ForgeConfig) -> Iterator[Path]:
    """The run's folder, locked until the block ends.

    Raises `StorageError` when another process has it, when the name is taken by another config, or when it cannot be
    written.
    """
    folder = config.folder
    with locked(folder):
        _claim(folder, config)
        yield folder


def check_folder(config: ForgeConfig) -> None:
    """Raise what `open_run` would raise, early."""
    with open_run(config):
        pass


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it against other processes."""
    with explain_os_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # /proc and the like refuse new names this way
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder)) from error
    with hold(folder / ".lock"):
        yield


def _claim(folder: Path, config: ForgeConfig) -> None:
    """Write `run.json`, or check that it names the same config.

    A name is taken once a phase was started under it: whoever mends a setting that was refused keeps the name.
    """
    settings = config.model_dump(mode="json", exclude=FREE)
    path = folder / RUN
    if path.exists():
        differing = differing_keys(_read(path)["config"], settings)
        if differing and any(folder.glob("*.key.json")):
            raise StorageError(
                f"{folder}: taken by another config (differing: {', '.join(differing)}); "
                "choose --set run=NAME, or delete the folder"
            )
        if not differing:
            return
    started = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
    write_json(path, {"config": settings, "started": started})


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"config": dict(content["config"]), "started": str(content["started"])}
    except (ValueError, KeyError, TypeError):
        raise StorageError(f"{path}: altered or truncated; delete the folder, or choose --set run=NAME") from None


def started(folder: Path) -> str:
    """When the run was first started, ISO 8601 with time zone."""
    return str(_read(folder / RUN)["started"])


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ, or that only one of the two has."""
    a, b = flatten(old), flatten(new)
    return sorted(key for key in {*a, *b} if key not in a or key not in b or a[key] != b[key])
