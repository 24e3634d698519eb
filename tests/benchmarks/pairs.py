"""Two ways to do one job, in turn, in one process: the ratio of each pair, and the median over the pairs.

These figures are ratios because machines differ and drift; a pair shares its moment.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Comparison:
    """One row of the benchmark's table."""

    name: str
    unit: str
    ours: float
    """Median over the pairs."""
    other: float
    """Median over the pairs."""
    other_name: str
    ratio: float
    """Median over the pairs of ours / other, in the direction in which more is better."""
    ratio_range: tuple[float, float]
    """Smallest and largest ratio of a pair."""
    target: float
    pairs: int

    @property
    def met(self) -> bool:
        """Whether the median reaches the target."""
        return self.ratio >= self.target


def seconds(job: Callable[[], object]) -> float:
    """Wall-clock seconds of one call; collectable garbage is collected before."""
    gc.collect()
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def compare(
    name: str,
    unit: str,
    work: float,
    ours: Callable[[], object],
    other_name: str,
    other: Callable[[], object],
    *,
    target: float,
    pairs: int = 5,
) -> Comparison:
    """Throughput (`work` units over seconds) of `ours` against `other`, after one warm-up of each."""
    ours()
    other()
    speeds = []
    for number in range(pairs):
        # The order alternates, so that neither always runs on the warmer machine.
        first, second = (ours, other) if number % 2 == 0 else (other, ours)
        a, b = work / seconds(first), work / seconds(second)
        speeds.append((a, b) if number % 2 == 0 else (b, a))
    ratios = [a / b for a, b in speeds]
    return Comparison(
        name=name,
        unit=unit,
        ours=statistics.median(a for a, _ in speeds),
        other=statistics.median(b for _, b in speeds),
        other_name=other_name,
        ratio=statistics.median(ratios),
        ratio_range=(min(ratios), max(ratios)),
        target=target,
        pairs=pairs,
    )


def table(rows: list[Comparison]) -> str:
    """Aligned plain text."""
    lines = [f"{'benchmark':34} {'ours':>10} {'other':>10} {'ratio':>7} {'range':>15} {'target':>7}  unit, other"]
    for row in rows:
        low, high = row.ratio_range
        mark = "met" if row.met else "MISSED"
        lines.append(
            f"{row.name:34} {row.ours:10,.1f} {row.other:10,.1f} {row.ratio:6.2f}x {low:6.2f} – {high:5.2f}x "
            f"{row.target:6.2f}x  {row.unit}, {row.other_name}: {mark} ({row.pairs} pairs)"
        )
    return "\n".join(lines)


def as_json(rows: list[Comparison]) -> str:
    """The same as JSON."""
    return json.dumps([{**asdict(row), "met": row.met} for row in rows], indent=2)
