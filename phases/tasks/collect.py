"""Draws to splits: a question's content decides where it goes, and held-out wins wherever two would meet.

Which split a draw falls into is decided by a hash of its group, a form that ignores order: `gcd 22 17` and
`gcd 17 22` cannot stand on two sides of the fence. The held-out share of every kind of question then equals the
split's share of all items, so a small corner of the space (one-digit sums: 200 questions) is not emptied into the
test split, as it would be by filling the splits one after the other.
"""

import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from phases.dataset import SPLITS, Split
from phases.errors import DataError
from phases.tasks.item import Item

Counts = Mapping[Split, int]
Items = dict[Split, list[Item]]

HELD_OUT_FIRST: tuple[Split, ...] = ("test", "validation", "train")


@dataclass(frozen=True)
class Draw:
    """One question in the two forms it may take."""

    group: str
    """Draws of one group always share a split."""
    train: Item
    held_out: Item


def unordered(prompt: str) -> str:
    """The words and signs of a prompt, sorted: the same for every order of the same operands."""
    return " ".join(sorted(re.findall(r"\w+|[^\w\s]", prompt)))


def split_by_content(group: str, wanted: Counts) -> Split:
    """The split that a group's hash falls into, in proportion to `wanted`."""
    place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64 * sum(wanted.values())
    for split in HELD_OUT_FIRST:
        place -= wanted.get(split, 0)
        if place < 0:
            return split
    return "train"


def fill(draws: Iterable[Draw], wanted: Counts) -> Items:
    """Distinct items for each split until all are full or the draws end."""
    result: Items = {split: [] for split in SPLITS}
    seen: set[str] = set()
    missing = sum(wanted.values())
    for draw in draws if missing else ():
        split = split_by_content(draw.group, wanted)
        item = draw.train if split == "train" else draw.held_out
        if len(result[split]) < wanted.get(split, 0) and item.key not in seen:
            seen.add(item.key)
            result[split].append(item)
            missing -= 1
            if not missing:
                break
    return result


def without_shared(items: Items) -> Items:
    """Each key once: test keeps its items, validation loses those of test, train those of both."""
    seen: set[str] = set()
    result: Items = {}
    for split in HELD_OUT_FIRST:
        fresh = {item.key: item for item in reversed(items[split]) if item.key not in seen}
        result[split] = list(reversed(fresh.values()))
        seen |= fresh.keys()
    return result


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to `weights` that sum to `total` (largest remainders)."""
    if not weights:
        return []
    exact = [total * weight / sum(weights) for weight in weights]
    whole = [int(value) for value in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: total - sum(whole)]:
        whole[i] += 1
    return whole


def require_enough(source: str, wanted: Counts, got: Mapping[str, Items]) -> None:
    """Raise `DataError` when a split has fewer than half its items; names the generator that fell furthest short."""
    for split, count in wanted.items():
        found = {name: len(items[split]) for name, items in got.items()}
        if found and sum(found.values()) * 2 < count:
            name = min(found, key=lambda n: found[n])
            raise DataError(
                f"{source}: {sum(found.values())} of {count} {split} items; '{name}' has too few distinct items "
                f"({found[name]}): widen its parameters or ask for fewer items"
            )


def seeded(seed: int, *names: object) -> random.Random:
    """A generator of its own for each named purpose; independent of the process and of the other purposes."""
    return random.Random(f"{seed}/" + "/".join(str(name) for name in names))
