"""Logs of JSON lines that a killed process goes on from: whole lines count, each is on the disk before work goes on."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from phases.errors import CheckpointError
from phases.storage import explain_os_errors

T = TypeVar("T")


def read_lines(path: Path, parse: Callable[[Any], T], wrong: str = "a line is not a record") -> list[T]:
    """The whole lines of a file, none where there is no file; a cut-off last line is removed from it.

    Raises `CheckpointError`, which says what is `wrong`, when a line is something else.
    """
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with explain_os_errors(path), path.open("rb+") as file:
            file.truncate(len(whole))
    try:
        return [parse(json.loads(line)) for line in whole.decode().splitlines()]
    except (ValueError, ValidationError):
        raise CheckpointError(f"{path}: altered ({wrong}); delete it and run again") from None


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a file and have them on the disk."""
    with explain_os_errors(path), path.open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
