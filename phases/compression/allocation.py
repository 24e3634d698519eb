"""Bits where the loss feels them: one option for every matrix, so that the whole fits a budget of bytes at least loss.

    chosen = allocate({"up": [Option(Ternary(), 5000, .0), Option(VPTQ(), 3100, .02)], …}, budget=200_000)

    minimise Σ loss(option of m)   subject to   Σ bytes(option of m) + Σ bytes of the codebooks in use ≤ budget

Losses of single matrices are added up, as for small ones they nearly do (arXiv 1911.03852). That is the knapsack of
multiple choice: solved exactly by dynamic programming over bytes in units of a 4,096th of the budget, rounded up, so
that the budget holds. A codebook is paid for once, so every small set of codebooks is tried.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from phases.compression.stored import Coding
from phases.compression.vptq import VPTQ
from phases.errors import ConfigError


class BudgetError(ConfigError):
    """A budget that nothing fits."""

    def __init__(self, message: str, least: int) -> None:
        super().__init__(message)
        self.least = least
        """Bytes that would do."""


UNITS = 4096
"""Steps of the budget."""
MOST_CODEBOOKS = 2
"""In use at once: each costs what many weights do."""


@dataclass(frozen=True)
class Option:
    """One way to store a matrix."""

    codec: Coding
    bytes: int
    """Without a shared codebook."""
    loss: float
    """How much higher the held-out loss is when this matrix alone is stored so, nats a token."""


def codebook_bytes(codec: VPTQ) -> int:
    """Of a shared codebook, float16."""
    return 2 * (1 + codec.residuals) * codec.codebook_size * codec.vector


def allocate(options: Mapping[str, Sequence[Option]], budget: int, where: str = "compression") -> dict[str, Option]:
    """The option of every matrix. Raises `BudgetError` for a budget that nothing fits, with the least that would."""
    best: tuple[float, dict[str, Option]] | None = None
    least: int | None = None
    for codebooks in _sets(options):
        allowed = {
            name: sorted((o for o in every if not isinstance(o.codec, VPTQ) or o.codec in codebooks), key=_smallest)
            for name, every in options.items()
        }
        if not all(allowed.values()):
            continue
        shared = sum(map(codebook_bytes, codebooks))
        smallest = {name: min(every, key=_smallest) for name, every in allowed.items()}
        cheapest = shared + sum(option.bytes for option in smallest.values())
        least = cheapest if least is None else min(least, cheapest)
        if cheapest > budget:
            continue
        # Where rounding up to units leaves nothing that fits, the smallest options still do.
        found = _solve(allowed, budget - shared) or (sum(o.loss for o in smallest.values()), smallest)
        if best is None or found[0] < best[0]:
            best = found
    if least is None:
        raise ConfigError(
            f"{where}: no {MOST_CODEBOOKS} codebooks serve all matrices; name more of compression.codecs.names"
        )
    if best is None:
        needed = f"the {least:,} that these codecs need with their side information"
        raise BudgetError(f"{where}: {max(0, budget):,} bytes are below {needed}", least)
    return best[1]


def _smallest(option: Option) -> int:
    """Of equal losses the first is taken."""
    return option.bytes


def _sets(options: Mapping[str, Sequence[Option]]) -> Iterator[tuple[VPTQ, ...]]:
    """Every set of codebooks up to the most, none first."""
    used = {o.codec: None for every in options.values() for o in every if isinstance(o.codec, VPTQ)}
    for count in range(min(MOST_CODEBOOKS, len(used)) + 1):
        yield from combinations(used, count)


def _solve(options: Mapping[str, Sequence[Option]], budget: int) -> tuple[float, dict[str, Option]] | None:
    """(least loss, its options), or None where rounding up leaves none that fits."""
    unit = max(1, budget // UNITS)
    size = budget // unit
    loss_C, picked = np.zeros(size + 1), []
    for every in options.values():
        costs = [-(-o.bytes // unit) for o in every]
        table_OC = np.full((len(every), size + 1), np.inf)
        for row, (option, cost) in enumerate(zip(every, costs, strict=True)):
            if cost <= size:
                table_OC[row, cost:] = loss_C[: size + 1 - cost] + option.loss
        picked.append(table_OC.argmin(0))
        loss_C = table_OC.min(0)
    if not np.isfinite(loss_C[size]):
        return None
    chosen, left = {}, size
    for (name, every), pick_C in reversed(list(zip(options.items(), picked, strict=True))):
        option = every[int(pick_C[left])]
        chosen[name] = option
        left -= -(-option.bytes // unit)
    return float(loss_C[size]), {name: chosen[name] for name in options}
