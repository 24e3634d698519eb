"""The allocator: against every combination, with codebooks that are paid for once, and a budget that nothing fits."""

from itertools import product

import numpy as np
import pytest

from phases.compression.allocation import BudgetError, Option, allocate, codebook_bytes
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.errors import ConfigError

T, U = Ternary(0.5), Ternary(1.0)
V, W = VPTQ(vector=8, codebook_size=16), VPTQ(vector=4, codebook_size=16)


def table(seed: int, matrices: int) -> dict[str, list[Option]]:
    draw = np.random.default_rng(seed)
    return {
        f"m{i}": [Option(codec, int(draw.integers(50, 900)), float(draw.random())) for codec in (T, U, V, W)]
        for i in range(matrices)
    }


def brute(options: dict[str, list[Option]], budget: int) -> float:
    best = np.inf
    for chosen in product(*options.values()):
        books = {o.codec for o in chosen if isinstance(o.codec, VPTQ)}
        if sum(o.bytes for o in chosen) + sum(map(codebook_bytes, books)) <= budget:
            best = min(best, sum(o.loss for o in chosen))
    return float(best)


@pytest.mark.parametrize("seed", range(8))
def test_no_combination_is_better(seed: int) -> None:
    options = table(seed, 5)
    for budget in (1200, 1800, 2500, 4000):
        wanted = brute(options, budget)
        if not np.isfinite(wanted):
            with pytest.raises(ConfigError):
                allocate(options, budget)
            continue
        chosen = allocate(options, budget)
        books = {o.codec for o in chosen.values() if isinstance(o.codec, VPTQ)}
        assert sum(o.bytes for o in chosen.values()) + sum(map(codebook_bytes, books)) <= budget
        assert sum(o.loss for o in chosen.values()) == pytest.approx(wanted)


def test_a_codebook_is_paid_for_once() -> None:
    """One matrix does not earn it; two that share it do."""
    cheap, dear = Option(V, 100, 0.0), Option(T, 100 + codebook_bytes(V) // 2 + 10, 0.5)
    assert allocate({"a": [cheap, dear]}, dear.bytes)["a"] is dear
    both = allocate({"a": [cheap, dear], "b": [cheap, dear]}, 200 + codebook_bytes(V))
    assert both == {"a": cheap, "b": cheap}


def test_a_large_budget_is_kept_to_with_units_of_many_bytes() -> None:
    options = {f"m{i}": [Option(T, 100_003 + i, 0.1), Option(U, 50_001 + i, 0.2)] for i in range(40)}
    for budget in (2_500_000, 3_000_000, 3_999_999):
        chosen = allocate(options, budget)
        used = sum(o.bytes for o in chosen.values())
        assert used <= budget and used + 50_002 + 40 * (budget // 4096) > min(budget, 40 * 100_000)


def test_a_budget_below_the_side_information_says_what_is_needed() -> None:
    options = {"a": [Option(T, 100, 0.0)], "b": [Option(T, 100, 0.0)]}
    with pytest.raises(
        BudgetError, match=r"compression: 99 bytes are below the 200 that .* side information"
    ) as caught:
        allocate(options, 99)
    assert caught.value.least == 200
    with pytest.raises(BudgetError, match="compression: 0 bytes are below"):
        allocate(options, -4_000)


def test_what_is_said_to_be_enough_is_enough() -> None:
    """Bytes of units, rounded up, of many matrices are more than the budget."""
    options = {f"m{i}": [Option(T, 10_001, 0.1), Option(U, 20_001, 0.0)] for i in range(50)}
    chosen = allocate(options, 50 * 10_001)
    assert sum(o.bytes for o in chosen.values()) == 50 * 10_001


def test_of_equal_losses_the_smallest_is_taken() -> None:
    assert allocate({"a": [Option(T, 300, 0.1), Option(U, 200, 0.1)]}, 1000)["a"].codec is U
