"""Archiving a project: its reports are put aside in one file, and it has no more nights.

    archive(project, out / project.name, "no longer used")    # <out>/<name>.reports.zip

Checkpoints and data are gigabytes that one wants to be rid of some day; the file lies beside the project's folder, so
that the folder may be deleted and what every night found is still there.
"""

import os
import zipfile
from pathlib import Path

from distillation.project.project import Project
from phases.storage import explain_os_errors, fsync_path

REPORTS = ("report.json", "report.md")


def archive(project: Project, folder: Path, reason: str) -> None:
    """Keep the reports of all nights in `folder`, then move the project to its archive; once archived it stays so.

    The step in the project's history names the last report. Raises `StorageError` where the file cannot be written.
    """
    if project.stage == "archived":
        return
    kept = sorted(path for name in REPORTS for path in folder.glob(f"night-*/{name}"))
    if kept:
        target = folder.with_name(f"{folder.name}.reports.zip")
        _pack(kept, folder, target)
        reason = f"{reason}; {len({path.parent for path in kept})} nights' reports are in {target.name}"
    told = [night.report for night in project.nights() if night.report]
    project.move("archived", reason, told[-1] if told else "")


def _pack(files: list[Path], folder: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with explain_os_errors(target):
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as packed:
                for path in files:
                    packed.write(path, path.relative_to(folder))
            fsync_path(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_path(target.parent)
