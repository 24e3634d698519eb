"""Balance between groups: none drowns the others.

    kept, step = balance(records, Balance(), seed=0)

A group above the mean size m of groups is cut to m (`equal`), or to √(n·m), half-way on a logarithmic scale
(`square_root`); groups below are left whole: nothing is repeated. `most` then limits the whole: each group gets its
share, and what small groups leave goes to the others. Within a group edge cases stay first, and then chance decides by
the hash of seed and record, so that the order of files does not matter and new records change little.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from distillation.curation.step import Step, taken_out
from distillation.record import Record
from phases.strict import StrictModel

REASON = "more of its group than its share"


class Balance(StrictModel):
    """How many records each group may have."""

    shares: Literal["as_is", "square_root", "equal"] = "square_root"
    """`as_is` leaves groups as large as they are."""
    most_per_group: int | None = Field(None, ge=1)
    """No group has more records than this."""
    most: int | None = Field(None, ge=1)
    """All groups together have no more records than this."""


def balance(records: Sequence[Record], config: Balance, seed: int) -> tuple[list[Record], Step]:
    """The records that their groups have room for, in their order."""
    counts = Counter(record.group for record in records)
    room = rooms(counts, config)
    reasons: dict[int, str] = {}
    members: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        members.setdefault(record.group, []).append(i)
    for group, indices in members.items():
        if room[group] < len(indices):
            ranked = sorted(indices, key=lambda i: (not records[i].edge, _lot(seed, records[i])))
            reasons |= dict.fromkeys(ranked[room[group] :], REASON)
    return taken_out("balance", records, reasons, findings={f"group {name}": room[name] for name in sorted(room)})


def rooms(counts: Mapping[str, int], config: Balance) -> dict[str, int]:
    """How many records of each group stay."""
    if not counts:
        return {}
    mean = sum(counts.values()) / len(counts)
    wanted = {}
    for group, n in sorted(counts.items()):
        limit = {"as_is": n, "square_root": math.ceil(math.sqrt(n * mean)), "equal": math.ceil(mean)}[config.shares]
        wanted[group] = min(n, limit, config.most_per_group or n)
    if config.most is None or sum(wanted.values()) <= config.most:
        return wanted
    return _filled(wanted, config.most, {"as_is": 1.0, "square_root": 0.5, "equal": 0.0}[config.shares])


def _filled(wanted: Mapping[str, int], total: int, power: float) -> dict[str, int]:
    """`total` places by weights n^power, none above what is wanted; what full groups leave goes to the others."""
    room: dict[str, int] = {}
    open_groups = dict(wanted)
    left = total
    while open_groups:
        weight = sum(n**power for n in open_groups.values())
        full = {g: n for g, n in open_groups.items() if n <= left * n**power / weight}
        if not full:
            exact = {g: left * n**power / weight for g, n in open_groups.items()}
            return room | _rounded(exact, left)
        room |= full
        left -= sum(full.values())
        open_groups = {g: n for g, n in open_groups.items() if g not in full}
    return room


def _rounded(exact: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers of the same sum: the largest remainders are rounded up."""
    whole = {group: math.floor(value) for group, value in exact.items()}
    ranked = sorted(exact, key=lambda group: (whole[group] - exact[group], group))
    for group in ranked[: total - sum(whole.values())]:
        whole[group] += 1
    return whole


def _lot(seed: int, record: Record) -> bytes:
    return hashlib.sha256(f"{seed}\0{record.key}".encode()).digest()
