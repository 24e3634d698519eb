"""A plan's folder: files of an earlier plan are replaced, everything else in it is the user's and stays.

    from deployment.manifests.folder import replace_files
    replace_files(Path("plan"), {"plan.json": "...", "kubernetes/serving.yaml": "..."})

Users put weights to `models/` beside the compose file, and load tests write `measured.json`: neither may be lost when
the plan is written again. What an earlier plan wrote stands in its own `plan.json`; only that is replaced or removed.
The new files are written in full beside the old ones, then renamed one by one, and a failure renames all of them back.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from phases.errors import StorageError

PLAN = "plan.json"
FILES = "files"
"""Key of a plan's JSON: the names of all files that it was written with."""


def replace_files(folder: Path, contents: Mapping[str, str]) -> list[Path]:
    """Write `contents`, by their paths in `folder`, and remove what an earlier plan wrote besides; the files, sorted.

    Raises `StorageError`: the folder holds something else than a plan, or cannot be written; it is then as it was.
    """
    earlier = _earlier(folder)
    _check(folder, contents, earlier)
    known = sorted({*(earlier or ()), *contents})
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Inside, so that renames stay on one file system wherever the folder is mounted.
        staged = Path(tempfile.mkdtemp(prefix=".new.", dir=folder))
        try:
            _fill(staged / "new", contents)
            _exchange(folder, staged, known)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            if new:
                with suppress(OSError):  # nothing was written to it: gone again
                    folder.rmdir()
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}; give a folder that can be written") from None
    return [folder / name for name in sorted(contents)]


def _check(folder: Path, contents: Iterable[str], earlier: Sequence[str] | None) -> None:
    """Raise `StorageError` where something of the user's stands in the way."""
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / PLAN).is_file())):
        raise StorageError(f"{folder}: holds something else than a plan; give a new folder")
    for name in contents:
        there = folder / name
        if there.is_dir() or (earlier is not None and name not in earlier and there.exists()):
            raise StorageError(f"{there}: no plan wrote it, and this one has a file of that name; move it away")


def _earlier(folder: Path) -> list[str] | None:
    """What the plan that is there was written with, as far as it is there and inside; None: it does not say."""
    try:
        names = json.loads((folder / PLAN).read_text(encoding="utf-8"))[FILES]
        parts = [PurePosixPath(name) for name in names]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    inside = [part for part in parts if not part.is_absolute() and ".." not in part.parts]
    return [str(part) for part in inside if (folder / part).is_file()]


def _fill(staged: Path, contents: Mapping[str, str]) -> None:
    for name, text in contents.items():
        path = staged / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if name.endswith(".sh") else 0o644)


def _exchange(folder: Path, staged: Path, names: Iterable[str]) -> None:
    """Old files out, new ones in; a failure undoes what was done."""
    done: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
        done.append((source, target))

    try:
        for name in names:
            if (folder / name).exists():
                move(folder / name, staged / "old" / name)
            if (staged / "new" / name).exists():
                move(staged / "new" / name, folder / name)
    except OSError:
        for source, target in reversed(done):
            os.replace(target, source)
        raise
    finally:
        for name in names:
            with suppress(OSError):  # what other files stand in stays
                (folder / name).parent.rmdir()
