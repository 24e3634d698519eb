"""Weighted k-means against loops, one number at a time; its error never rises, and no centre is left over."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phases.compression.kmeans import kmeans, lloyd, means, means_of_sum, nearest, nearest_sum, seeds, sum_of

WEIGHTS = ["none", "vectors", "coordinates"]


def data(kind: str, n: int = 60, v: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, v, generator=generator, dtype=torch.float64)
    w = torch.rand(n, v, generator=generator, dtype=torch.float64).square()
    return x, {"none": None, "vectors": w[:, 0].clone(), "coordinates": w}[kind]


def spread_out(x: torch.Tensor, weights: torch.Tensor | None) -> list[list[float]]:
    """A weight for every coordinate."""
    if weights is None:
        return torch.ones_like(x).tolist()
    return weights.view(len(x), -1).expand_as(x).tolist()


def cost(x: list[float], c: list[float], w: list[float]) -> float:
    return sum(wj * (xj - cj) ** 2 for xj, cj, wj in zip(x, c, w, strict=True))


def loop_nearest(xs: list[list[float]], centres: list[list[float]], ws: list[list[float]]) -> list[int]:
    costs = ([cost(x, c, w) for c in centres] for x, w in zip(xs, ws, strict=True))
    return [row.index(min(row)) for row in costs]


def loop_seeds(x: torch.Tensor, weights: torch.Tensor | None, count: int, seed: int) -> list[list[float]]:
    """k-means++ by the same uniform draws."""
    generator, xs, ws = np.random.default_rng(seed), x.tolist(), spread_out(x, weights)
    mass, chosen = [sum(w) for w in ws], []
    for _ in range(count):
        left, pick = generator.random() * sum(mass), 0
        while left >= mass[pick]:
            left -= mass[pick]
            pick += 1
        chosen.append(xs[pick])
        mass = [min(cost(p, c, w) for c in chosen) for p, w in zip(xs, ws, strict=True)]
    return chosen


def loop_lloyd(x: torch.Tensor, weights: torch.Tensor | None, centres: list[list[float]], steps: int) -> tuple:
    xs, ws = x.tolist(), spread_out(x, weights)
    codes = loop_nearest(xs, centres, ws)
    for _ in range(steps):
        fresh = []
        for k, centre in enumerate(centres):
            members = [n for n, code in enumerate(codes) if code == k]
            assert members, "the loop knows no empty clusters"
            row = []
            for j, _old in enumerate(centre):
                mass = sum(ws[n][j] for n in members)
                row.append(sum(ws[n][j] * xs[n][j] for n in members) / mass)
            fresh.append(row)
        centres, codes = fresh, loop_nearest(xs, fresh, ws)
    error = sum(cost(p, centres[code], w) for p, code, w in zip(xs, codes, ws, strict=True))
    return centres, codes, error


@pytest.mark.parametrize("kind", WEIGHTS)
def test_seeds_equal_a_loop(kind: str) -> None:
    x, w = data(kind)
    torch.testing.assert_close(seeds(x, 5, w, 3).tolist(), loop_seeds(x, w, 5, 3))


@pytest.mark.parametrize("kind", WEIGHTS)
def test_iterations_equal_a_loop(kind: str) -> None:
    x, w = data(kind)
    start = seeds(x, 5, w, 1)
    found = lloyd(x, start, w, iterations=4, tolerance=0)
    centres, codes, error = loop_lloyd(x, w, start.tolist(), len(found.errors) - 1)
    torch.testing.assert_close(found.centres_KV.tolist(), centres)
    assert found.codes_N.tolist() == codes
    assert found.errors[-1] == pytest.approx(error) and len(found.errors) == 5


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 12), st.sampled_from(WEIGHTS), st.integers(0, 99))
def test_the_error_never_rises(n: int, v: int, count: int, kind: str, seed: int) -> None:
    x, w = data(kind, n, v, seed)
    found = kmeans(x, count, w, seed, iterations=20, tolerance=0)
    assert all(b <= a * (1 + 1e-12) + 1e-20 for a, b in zip(found.errors, found.errors[1:], strict=False))
    assert found.centres_KV.shape == (count, v) and torch.isfinite(found.centres_KV).all()
    assert torch.equal(found.codes_N, nearest(x, found.centres_KV, w))


def test_it_ends_where_centres_are_means_and_codes_are_nearest() -> None:
    x, w = data("coordinates", 300, 2)
    found = kmeans(x, 8, w, iterations=200, tolerance=-1)
    again, unused = means(x, found.codes_N, found.centres_KV, w)
    torch.testing.assert_close(again, found.centres_KV)
    assert len(found.errors) < 200 and not unused.any()


def test_a_weight_of_three_is_a_vector_thrice() -> None:
    x, _ = data("none")
    w = torch.arange(len(x), dtype=torch.float64) % 3 + 1
    start = x[:6]
    weighted = lloyd(x, start, w)
    repeated = lloyd(x.repeat_interleave(w.long(), 0), start)
    torch.testing.assert_close(weighted.centres_KV, repeated.centres_KV)
    torch.testing.assert_close(weighted.errors, repeated.errors)


def test_centres_that_serve_nothing_move_to_the_worst_served() -> None:
    x, _ = data("none", 100, 2)
    start = torch.cat((torch.zeros(1, 2), torch.full((3, 2), 1e3))).double()
    worst = x.square().sum(1).topk(3).indices
    found = lloyd(x, start, iterations=1)
    torch.testing.assert_close(found.centres_KV[1:], x[worst])
    assert len(found.codes_N.unique()) == 4
    assert len(lloyd(x, start).codes_N.unique()) == 4


def test_fewer_vectors_than_centres_are_served_exactly() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    found = kmeans(x, 6)
    assert torch.equal(found.centres_KV[found.codes_N], x) and found.errors[-1] == 0


def test_what_has_no_weight_moves_no_centre() -> None:
    x, w = data("coordinates")
    assert w is not None
    w[::2] = 0
    w[:, 1] = 0
    moved = x.clone()
    moved[::2] += 100
    start = seeds(x[1::2], 4, w[1::2])
    found, other = lloyd(x, start, w), lloyd(moved, start, w)
    assert torch.equal(found.centres_KV, other.centres_KV)
    assert torch.equal(lloyd(x, start, w, iterations=1).centres_KV[:, 1], start[:, 1])  # never weighed, so kept
    assert torch.isfinite(kmeans(x, 4, torch.zeros_like(x)).centres_KV).all()


def test_equal_seeds_give_equal_centres() -> None:
    x, w = data("coordinates")
    first, same, other = kmeans(x, 7, w, 5), kmeans(x, 7, w, np.random.default_rng(5)), kmeans(x, 7, w, 6)
    assert torch.equal(first.centres_KV, same.centres_KV) and first.errors == same.errors
    assert not torch.equal(first.centres_KV, other.centres_KV)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = data("coordinates")
    books = torch.stack((x[:4], x[4:8] / 3))
    whole, summed = kmeans(x, 7, w), nearest_sum(x, books, w, 2)
    monkeypatch.setattr("phases.compression.kmeans.BLOCK", 30)
    parts = kmeans(x, 7, w)
    torch.testing.assert_close(parts.centres_KV, whole.centres_KV)
    assert torch.equal(parts.codes_N, whole.codes_N)
    assert torch.equal(nearest_sum(x, books, w, 2), summed)


def test_a_wide_beam_finds_the_best_sum() -> None:
    x, w = data("coordinates", 20)
    assert w is not None
    books = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    codes = nearest_sum(x, books, w, beam=64)
    for n, (p, weight) in enumerate(zip(x.tolist(), w.tolist(), strict=True)):
        costs = {
            abc: cost(p, sum(books[r, c] for r, c in enumerate(abc)).tolist(), weight)  # type: ignore[union-attr]
            for abc in product(range(4), repeat=3)
        }
        assert costs[tuple(codes[:, n].tolist())] == pytest.approx(min(costs.values()))


def test_a_beam_of_one_takes_the_nearest_of_each_codebook() -> None:
    x, w = data("coordinates")
    assert w is not None
    books = torch.stack((x[:4], x[4:8] / 3))
    first = nearest(x, books[0], w)
    expected = torch.stack((first, nearest(x - books[0][first], books[1], w)))
    assert torch.equal(nearest_sum(x, books, w, 1), expected)
    wrong = [float((w * (x - sum_of(books, nearest_sum(x, books, w, b))).square()).sum()) for b in (1, 2, 4)]
    assert wrong == sorted(wrong, reverse=True) and wrong[-1] < wrong[0]


def test_means_of_sums_are_least_squares() -> None:
    x, w = data("coordinates", 80)
    assert w is not None
    codes = torch.randint(4, (2, 80), generator=torch.Generator().manual_seed(2))
    found = means_of_sum(x, codes, torch.zeros(2, 4, 3, dtype=torch.float64), w, sweeps=300)
    design = torch.cat([torch.nn.functional.one_hot(c, 4).double() for c in codes], 1)
    for j in range(3):
        root = w[:, j].sqrt()
        best = torch.linalg.lstsq(design * root[:, None], x[:, j] * root, driver="gelsd").solution
        torch.testing.assert_close(design @ found[:, :, j].flatten(), design @ best)


@pytest.mark.parametrize(
    ("x", "w", "count", "reason"),
    [
        (torch.zeros(3), None, 1, "not a list of finite vectors"),
        (torch.zeros(0, 2), None, 1, "not a list of finite vectors"),
        (torch.full((3, 2), torch.nan), None, 1, "not a list of finite vectors"),
        (torch.zeros(3, 2), torch.ones(2), 1, "one a vector or a coordinate"),
        (torch.zeros(3, 2), torch.ones(3, 1), 1, "one a vector or a coordinate"),
        (torch.zeros(3, 2), -torch.ones(3), 1, "negative or not finite"),
        (torch.zeros(3, 2), torch.full((3,), torch.inf), 1, "negative or not finite"),
        (torch.zeros(3, 2), None, 0, "0 centres: at least one"),
    ],
)
def test_bad_input_is_refused(x: torch.Tensor, w: torch.Tensor | None, count: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        kmeans(x, count, w)
