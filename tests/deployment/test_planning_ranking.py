"""The Pareto front, the orders, the PRD's score, the nearest misses."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.hardware import Offer
from deployment.model import Model, Quality
from deployment.planning.candidate import Candidate, Rejection
from deployment.planning.nearest import miss, nearest
from deployment.planning.pareto import front, ranked
from deployment.planning.request import Request
from deployment.planning.score import Weights, licence_term, terms
from deployment.serving import Estimate, Figure, Load, MemoryPlan, Serving

OFFER = Offer("c", "i", "r", "cpu", 0, 1.0, "USD", False, 4, 2**34, "2026-07-20", "test")
FIGURE = Figure(1.0, 1.0, 1.0, "analytic")
ESTIMATE = Estimate(MemoryPlan(4, 1, 1, 1, 1, 1), 1.0, FIGURE, FIGURE, FIGURE)


def candidate(name, cost, e2e, quality=None, score=0.0):
    model = Model(str(name), "llama", (), 8, 8, 8, 8)
    shown = None if quality is None else Quality("q", quality, "test")
    return Candidate(
        model, None, OFFER, Serving(), Load(1, 1, rate=1.0), 1, 1, ESTIMATE, 0.1, 0.1, e2e, cost, 1.0, shown, score
    )


figures = st.floats(0.1, 100, allow_nan=False)
several = st.lists(st.tuples(figures, figures, st.none() | st.floats(1, 100)), min_size=1, max_size=15).map(
    lambda rows: [candidate(i, *row) for i, row in enumerate(rows)]
)


def beats(one, other):
    a, b = ((c.cost_per_hour, c.e2e_p95, -(c.quality.score if c.quality else -1e9)) for c in (one, other))
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@settings(max_examples=50, deadline=None)
@given(several)
def test_front_is_what_comparing_all_pairs_finds(candidates):
    alone = [c for c in candidates if not any(beats(other, c) for other in candidates)]
    found = front(candidates)
    assert {id(c) for c in found} <= {id(c) for c in alone}
    assert all(any(c is f or not (beats(f, c) or beats(c, f)) for f in found) for c in alone)
    assert {(c.cost_per_hour, c.e2e_p95) for c in alone} == {(c.cost_per_hour, c.e2e_p95) for c in found}
    assert [c.cost_per_hour for c in found] == sorted(c.cost_per_hour for c in found)


@settings(max_examples=50, deadline=None)
@given(several, st.sampled_from(["cost", "latency", "quality", "balance"]))
def test_the_best_in_every_order_is_on_the_front(candidates, rank):
    assert ranked(candidates, rank)[0] in front(candidates)


@settings(max_examples=50, deadline=None)
@given(several, st.randoms())
def test_order_does_not_depend_on_the_order_before(candidates, random):
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert ranked(shuffled, "balance") == ranked(candidates, "balance")


def test_orders():
    cheap, fast, good = candidate("a", 1, 9, 50, 10), candidate("b", 5, 1, 60, 90), candidate("c", 9, 5, 80, 50)
    best = {rank: ranked([cheap, fast, good], rank)[0].model.name for rank in ("cost", "latency", "quality", "score")}
    assert best == {"cost": "a", "latency": "b", "quality": "c", "score": "b"}


def test_without_a_score_quality_is_the_worst_and_never_an_error():
    known, unknown = candidate("a", 2, 2, 10), candidate("b", 1, 1)
    assert ranked([unknown, known], "quality")[0] is known
    assert ranked([unknown, known], "balance")[0] is known
    assert ranked([unknown], "balance") == (unknown,)
    assert front([known, unknown]) == (unknown, known)


def test_weights_of_the_prd():
    weights = Weights()
    assert (weights.task, weights.context, weights.latency) == (40, 15, 15)
    assert (weights.vram, weights.licence, weights.margin) == (15, 10, 5)
    ones = dict.fromkeys(weights.model_dump(), 1.0)
    assert weights.score(ones) == 100
    assert weights.score(ones | {"vram": 0.0}) == 85, "the PRD's problem: what does not fit at all still scores 85"
    assert Weights(task=0, context=0, latency=0, vram=0, licence=3, margin=1).score(ones | {"margin": 0.0}) == 75


def test_terms_by_hand():
    workload = Request.parse({"use_case": "extraction"}, "r").workload()
    model = Model("m", "llama", (), 8, 8, 6144, 8, licence="mit", tasks=("chat",))
    found = terms(model, workload, [(500, 1000), (25, 50)], 0.25, -1.0)
    assert found == {"task": 1, "context": 0.75, "latency": 0.5, "vram": 0.25, "licence": 1, "margin": 0}
    assert [licence_term(name) for name in ("MIT", "llama3.1", "unknown")] == [1, 0.5, 0]


def rejection(constraint, value, limit):
    return Rejection("m on g", "m", "g", constraint, value, limit, "")


def test_nearest_is_the_smallest_miss_of_every_constraint():
    found = nearest(
        [
            rejection("budget", 300.0, 100.0),
            rejection("budget", 150.0, 100.0),
            rejection("context", 4096.0, 8192.0),
            rejection("licence", "x", "mit"),
        ]
    )
    assert [(r.constraint, r.value) for r in found] == [("budget", 150.0), ("context", 4096.0), ("licence", "x")]
    assert miss(found[1]) == pytest.approx(2)
