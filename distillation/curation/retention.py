"""How long captured records may be kept, and what was made of them: copies in files go by when they were written."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from distillation.curation.versions import CARD, RECORDS, read_version
from distillation.record import Record
from phases.errors import DataError, InputError
from phases.storage import explain_os_errors, sha256_json, write_json


def expired(dated: Iterable[tuple[Record, datetime]], keep_days: float, now: datetime) -> list[Record]:
    """The records that were captured more than `keep_days` days before `now`.

    Raises `InputError` for a time without its zone, which could be hours off, and for a negative period.
    """
    if keep_days < 0:
        raise InputError(f"retention of {keep_days} days: give 0 days or more")
    limit = _zoned(now) - timedelta(days=keep_days)
    return [record for record, captured in dated if _zoned(captured) < limit]


def delete_files(folder: Path, before: datetime) -> int:
    """Delete the files anywhere in a folder that were last written before then; how many.

    Folders in it that are empty afterwards go too; the folder itself stays. Raises `StorageError`.
    """
    removed = 0
    with explain_os_errors(folder):
        for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif _written(path) < before and not path.name.startswith("."):  # a lock is no copy of anything
                path.unlink()
                removed += 1
    return removed


def empty_versions(folder: Path, before: datetime) -> int:
    """Delete the records of the data set versions in a folder that were written before then; of how many.

    Their cards stay, without the example questions, so that the lineage of younger versions leads through them. One
    that was altered is deleted whole: its card says nothing any more. Raises `StorageError`.
    """
    old = [path for path in folder.glob(f"*/{RECORDS}") if _written(path) < before]
    for path in old:
        with explain_os_errors(path):
            try:
                _, card = read_version(path.parent)
            except DataError:
                (path.parent / CARD).unlink(missing_ok=True)
            else:
                write_json(path.parent / CARD, _without_examples(card))
            path.unlink()  # last: a version that has its records is looked at again
    return len(old)


def _without_examples(card: dict[str, object]) -> dict[str, object]:
    steps = card["steps"]
    assert isinstance(steps, list)
    kept = {name: value for name, value in card.items() if name != "card_sha256"}
    kept["steps"] = [{**step, "examples": {}} for step in steps]
    return {**kept, "card_sha256": sha256_json(kept)}


def _written(path: Path) -> datetime:
    return datetime.fromtimestamp(path.lstat().st_mtime, UTC)


def _zoned(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise InputError(f"{time.isoformat()}: a time without its zone; write it with one, such as +00:00")
    return time
