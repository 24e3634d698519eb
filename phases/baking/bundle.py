"""A checkpoint with more files beside its weights: the same model, and what makes it an agent."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from phases.checkpoint import MANIFEST, Checkpoint, Manifest, link_or_copy, open_checkpoint, write_manifest
from phases.storage import atomic_directory


def add_files(
    source: Checkpoint, out: Path, phase: str, texts: Mapping[str, str], files: Mapping[str, Path]
) -> Checkpoint:
    """Write `source` to `out` as that phase's, with texts (a file name to its text) and files (a file name to what is

    put there). Raises `FileExistsError` for a name that the source has: its file would be altered through the link.
    """
    with atomic_directory(out) as folder:
        shutil.copytree(source.path, folder, copy_function=link_or_copy, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()  # a link: writing through it would alter the source
        for name, text in texts.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text + "\n")
        for name, path in files.items():
            link_or_copy(str(path), str(folder / name))
        known = source.manifest
        manifest = Manifest(
            phase=phase,
            config=known["config"],
            seed=known["seed"],
            parents=tuple(known["parents"]),
            data=tuple(known["data"]),
            metrics=known["metrics"],
        )
        write_manifest(folder, manifest)
    return open_checkpoint(out)
