"""How long captured records may be kept."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from distillation.record import Record
from phases.errors import InputError


def expired(dated: Iterable[tuple[Record, datetime]], keep_days: float, now: datetime) -> list[Record]:
    """The records that were captured more than `keep_days` days before `now`.

    Raises `InputError` for a time without its zone, which could be hours off, and for a negative period.
    """
    if keep_days < 0:
        raise InputError(f"retention of {keep_days} days: give 0 days or more")
    limit = _zoned(now) - timedelta(days=keep_days)
    return [record for record, captured in dated if _zoned(captured) < limit]


def _zoned(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise InputError(f"{time.isoformat()}: a time without its zone; write it with one, such as +00:00")
    return time
