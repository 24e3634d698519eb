"""The exact test against sums over every table, a numerical likelihood, and its level on the boundary."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binomtest, multinomial, norm

from distillation.validation.paired_score import (
    EXACT_UP_TO,
    Table,
    one_sided,
    restricted_counts,
    score_interval,
    statistic,
    table,
)


def whole_tail(counts: Table, r: float, side: str) -> float:
    """The largest tail over the discordance, by adding up every table of as many items."""
    m = counts.informative
    cells = np.array([(m - b - c, b, c) for b, c in itertools.product(range(m + 1), repeat=2) if b + c <= m])
    z = statistic(*cells.T, r)
    own = float(statistic(counts.both, counts.student_only, counts.teacher_only, r))
    beyond = z >= own - 1e-9 if side == "above" else z <= own + 1e-9
    tails = []
    for q in np.linspace(1 - r, 1 / (1 + r), 200):
        both = (1 - q) / r - q
        p = np.clip([both, 1 - q - both, q], 0, 1)
        tails.append(multinomial.pmf(cells, m, p / p.sum())[beyond].sum())
    return float(max(tails))


def test_counts_pairs() -> None:
    assert table(np.array([1, 1, 0, 0, 1]), np.array([1, 0, 1, 0, 1])) == Table(2, 1, 1, 1)


@pytest.mark.parametrize("counts", [Table(20, 3, 2, 5), Table(12, 0, 6, 0), Table(30, 0, 0, 9), Table(3, 4, 0, 1)])
@pytest.mark.parametrize("side", ["above", "below"])
def test_p_is_the_largest_tail_over_all_tables(counts: Table, side: str) -> None:
    assert one_sided(counts, 0.9, side) == pytest.approx(whole_tail(counts, 0.9, side), abs=1e-4)  # type: ignore[arg-type]


@given(st.integers(0, 30), st.integers(0, 12), st.integers(0, 12), st.floats(0.6, 1.0))
@settings(max_examples=40, deadline=None)
def test_restricted_counts_maximise_the_likelihood(a: int, b: int, c: int, r: float) -> None:
    if a + b + c == 0:
        return
    m = a + b + c
    ours, theirs = (float(x) for x in restricted_counts(np.array(a), np.array(b), np.array(c), r))

    def cost(teacher_only: float) -> float:
        q = teacher_only / m
        both = (1 - q) / r - q
        pairs = ((a, both), (b, 1 - q - both), (c, q))
        return -sum(n * np.log(max(p, 1e-12)) for n, p in pairs if n)

    found = minimize(lambda x: cost(x[0]), [theirs], bounds=[(m * (1 - r) + 1e-9, m / (1 + r) - 1e-9)])
    assert cost(theirs) <= float(found.fun) + 1e-6
    assert ours >= -1e-9


def test_at_ratio_one_it_is_mcnemar() -> None:
    b, c = 14, 5
    assert float(statistic(40, b, c, 1.0)) == pytest.approx((b - c) / np.sqrt(b + c))
    # The exact test on the discordant items alone, which the largest tail comes near.
    conditional = binomtest(b, b + c, 0.5, alternative="greater").pvalue
    assert one_sided(Table(40, b, c, 3), 1.0, "above") == pytest.approx(conditional, abs=0.02)


def test_variance_is_that_of_the_literature() -> None:
    """(1 − r)²·p11 + p10 + r²·p01 of the restricted estimates, which reduces to r·(p10 + p01)."""
    a, b, c, r = 70.0, 6.0, 9.0, 0.95
    ours, theirs = restricted_counts(np.array(a), np.array(b), np.array(c), r)
    both = a + b + c - ours - theirs
    variance = (1 - r) ** 2 * both + ours + r**2 * theirs
    assert float(statistic(a, b, c, r)) == pytest.approx(((1 - r) * a + b - r * c) / np.sqrt(variance))


def test_the_statistic_grows_with_what_only_the_student_has() -> None:
    for m, r in itertools.product((1, 7, 40), (0.5, 0.9, 0.95, 1.0)):
        for c in range(m + 1):
            b = np.arange(m - c + 1)
            assert (np.diff(statistic(m - b - c, b, c, r)) > -1e-9).all()


def test_items_that_neither_has_right_change_nothing() -> None:
    assert one_sided(Table(50, 3, 2, 0), 0.95, "above") == one_sided(Table(50, 3, 2, 400), 0.95, "above")


def test_perfect_agreement_needs_59_items() -> None:
    assert one_sided(Table(58, 0, 0, 0), 0.95, "above") > 0.05 >= one_sided(Table(59, 0, 0, 0), 0.95, "above")
    assert one_sided(Table(59, 0, 0, 0), 0.95, "above") == pytest.approx(0.95**59, abs=1e-6)


def test_nothing_right_says_nothing() -> None:
    assert one_sided(Table(0, 0, 0, 30), 0.95, "above") == one_sided(Table(0, 0, 0, 30), 0.95, "below") == 1.0


def test_normal_tail_takes_over_where_it_is_close() -> None:
    m = EXACT_UP_TO
    exact = one_sided(Table(m - 320, 110, 210, 0), 0.95, "above")
    normal = one_sided(Table(m - 319, 110, 210, 0), 0.95, "above")
    assert normal == pytest.approx(float(norm.sf(statistic(m - 319, 110, 210, 0.95))))
    assert exact == pytest.approx(normal, abs=2e-3)


@pytest.mark.parametrize("m", [50, 59, 64, 80, 100])
def test_level_holds_for_every_discordance(m: int) -> None:
    """Exact, not simulated: the chance of all tables that pass, whatever share of items is discordant."""
    r, alpha = 0.95, 0.05
    cells = np.array([(m - b - c, b, c) for b in range(m // 2) for c in range(m // 2) if b + c <= m])
    z = statistic(*cells.T, r)
    near = np.flatnonzero((z > 1.5) & (z < 1.9))
    order = near[np.argsort(z[near])]
    low, high = 0, len(order)
    while low < high:  # p falls with z
        middle = (low + high) // 2
        a, b, c = (int(x) for x in cells[order[middle]])
        low, high = (low, middle) if one_sided(Table(a, b, c, 0), r, "above") <= alpha else (middle + 1, high)
    passed = cells[z >= z[order[low]] - 1e-9]
    for q in (0.05, 0.0501, 0.051, 0.053, 0.06, 0.08, 0.12, 0.2):
        both = (1 - q) / r - q
        chance = multinomial.pmf(passed, m, [both, max(1 - q - both, 0.0), q]).sum()
        assert chance <= alpha + 1e-4


def test_interval_is_the_ratios_that_are_not_refused() -> None:
    counts = Table(60, 5, 8, 20)
    low, high = score_interval(counts, 0.9)
    assert low < 65 / 68 < high
    assert float(statistic(60, 5, 8, low)) == pytest.approx(norm.isf(0.05), abs=1e-6)
    assert float(statistic(60, 5, 8, high)) == pytest.approx(-norm.isf(0.05), abs=1e-6)


def test_interval_at_the_ends() -> None:
    assert score_interval(Table(0, 0, 9, 1), 0.9)[0] == 0.0
    with pytest.raises(ValueError, match="no right answer"):
        score_interval(Table(0, 3, 0, 1), 0.9)
