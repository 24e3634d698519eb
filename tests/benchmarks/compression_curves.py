"""Rate against distortion: points, straight lines between them, and who is ahead at equal bytes.

    verdict = compare([trained], rivals["round to nearest, 128"], parent)[0]
    verdict.tasks, verdict.bits                                 # (difference, standard error), paired over the units

Two neighbours of a curve are joined in log bytes, unit by unit, so that a difference to the point between them is
paired. A curve of losses bends towards its axes, so the line flatters whoever is measured against it: beside it stands
the rival's next larger file. A rival without a smaller file is compared as it is, at its own bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metric import Values
from evaluation.ratio import BlockLosses, bits_difference, ratio
from evaluation.retention import Share, retained

EQUAL = "equal bytes"
SIGMAS = 2.0
"""Standard errors that a difference must exceed."""
TRAINED, UNTRAINED, MIXED, PACKED, FLOAT = "ours, trained", "ours, not trained", "ours, all codecs", "packed", "float32"


@dataclass(frozen=True)
class Point:
    """One model of one size, measured."""

    family: str
    setting: str
    tensor_bytes: int
    file_bytes: int
    """One file of weights, header and all."""
    tasks: Mapping[str, Values]
    """Whether each item was answered right."""
    text: BlockLosses
    note: str = ""


def kept(point: Point, parent: Point) -> Share | None:
    """Mean over the tasks of the share of the parent's right answers; None where it has none."""
    return _mean([retained(point.tasks[name], values) for name, values in parent.tasks.items()])


def between(curve: Sequence[Point], size: int) -> Point | None:
    """The point of a curve at so many bytes; None outside of its ends."""
    ordered = sorted(curve, key=lambda point: point.file_bytes)
    if not ordered or not ordered[0].file_bytes <= size <= ordered[-1].file_bytes:
        return None
    above = next(point for point in ordered if point.file_bytes >= size)
    below = [point for point in ordered if point.file_bytes <= size][-1]
    if above.file_bytes == below.file_bytes:
        return above
    share = math.log(size / below.file_bytes) / math.log(above.file_bytes / below.file_bytes)
    tasks = {name: _blend(values, above.tasks[name], share) for name, values in below.tasks.items()}
    nats_N = _blend(below.text.nats_N, above.text.nats_N, share)
    text = BlockLosses(nats_N, below.text.bytes_N, below.text.tokens)
    return Point(below.family, f"{below.setting} to {above.setting}", size, size, tasks, text)


def _blend(low_N: Values, high_N: Values, share: float) -> Values:
    return (1 - share) * np.asarray(low_N, dtype=np.float64) + share * np.asarray(high_N, dtype=np.float64)


@dataclass(frozen=True)
class Verdict:
    """Ours less a rival's: more of the tasks is better, fewer bits are."""

    rival: str
    setting: str
    where: str
    """`equal bytes`, or how many times our bytes the rival has."""
    our_bytes: int
    their_bytes: int
    tasks: Share | None
    """Difference of the share of the parent's right answers, mean over tasks."""
    bits: Share
    """Difference of bits per byte."""

    @property
    def word(self) -> str:
        """Beyond the errors on one count and not beyond them against us on the other."""
        signs = {_sign(self.tasks, 1), _sign(self.bits, -1)} - {0}
        word = "no difference" if not signs else "mixed" if len(signs) > 1 else "ahead" if signs == {1} else "behind"
        if self.where == EQUAL or word == "mixed":
            return word
        larger = self.their_bytes > self.our_bytes
        return f"{word}, we are {'smaller' if larger else 'larger'}"


def difference(ours: Point, theirs: Point, parent: Point, where: str) -> Verdict:
    """Paired over the units."""
    tasks = []
    for name, values in parent.tasks.items():
        right = np.asarray(values, dtype=np.float64)
        if right.sum() > 0:
            apart = np.asarray(ours.tasks[name], dtype=np.float64) - np.asarray(theirs.tasks[name], dtype=np.float64)
            tasks.append(ratio(apart, right))
    bits = bits_difference(ours.text, theirs.text)
    return Verdict(theirs.family, theirs.setting, where, ours.file_bytes, theirs.file_bytes, _mean(tasks), bits)


def compare(ours: Sequence[Point], rival: Sequence[Point], parent: Point) -> list[Verdict]:
    """A point of ours: between the rival's neighbours, and its next larger file. A curve: at each size of the rival.

    Above its end a curve counts as its largest file, below the other one a size is left out.
    """
    if len(ours) > 1:
        largest = max(ours, key=_bytes)
        pairs = [(between(ours, p.file_bytes) or largest, p) for p in rival if p.file_bytes >= min(map(_bytes, ours))]
        return [difference(own, theirs, parent, _where(own, theirs)) for own, theirs in pairs]
    own = ours[0]
    equal = between(rival, own.file_bytes)
    larger = [point for point in rival if point.file_bytes > own.file_bytes]
    nearest = min(larger, key=_bytes) if larger else max(rival, key=_bytes)
    chosen = [nearest] if equal is None else [equal, nearest][: 1 + bool(larger)]
    return [difference(own, theirs, parent, _where(own, theirs)) for theirs in chosen]


def _bytes(point: Point) -> int:
    return point.file_bytes


def _where(ours: Point, theirs: Point) -> str:
    if ours.file_bytes == theirs.file_bytes:
        return EQUAL
    return f"{theirs.file_bytes / ours.file_bytes:.2f}× our bytes"


def families(points: Sequence[Point]) -> dict[str, list[Point]]:
    """By family, smallest first."""
    found: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.file_bytes):
        found.setdefault(point.family, []).append(point)
    return found


def _sign(share: Share | None, better: int) -> int:
    if share is None or abs(share[0]) <= SIGMAS * (share[1] or 0.0):
        return 0
    return better if share[0] > 0 else -better


def _mean(shares: Sequence[Share | None]) -> Share | None:
    known = [share for share in shares if share is not None]
    if not known:
        return None
    return float(np.mean([value for value, _ in known])), math.hypot(*(error or 0.0 for _, error in known)) / len(known)
