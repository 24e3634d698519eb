"""Proposals: every operator by what it may do, credit against a second derivation, draws against their distribution."""

from collections import Counter

import numpy as np
import pytest

from phases.adas.archive import Archive, Candidate, Origin, Scores
from phases.adas.credit import SPREAD, VARIANCE, Credit
from phases.adas.genome import PARENT, WEIGHTS, Genome
from phases.adas.pool import POOL
from phases.adas.proposals import Evolution
from phases.adas.space import Space, at_random
from phases.adas.technique import Technique

EXPERTS = ("code", "facts")


def small_pool(groups=4, each=3):
    """g0-0 … g3-2: `each` techniques a group."""
    return {
        f"g{g}-{i}": Technique(
            name=f"g{g}-{i}", group=f"g{g}", says="", patch={"decoding": {"temperature": 1.0 + each * g + i}}
        )
        for g in range(groups)
        for i in range(each)
    }


POOL_12 = small_pool()


def space(pool=POOL_12, experts=EXPERTS, most=3):
    return Space(pool, experts, most, sigma=0.1, budget=4.0)


def archive_of(genomes, quality, units=100, work=lambda g: 1.0, rungs=1, stopped=lambda g: False):
    """Every genome on every rung, as good as `quality(genome)` says in the two domains."""
    archive = Archive()
    candidates = [
        Candidate(id=i, iteration=0, seed=0, search="search", origin=Origin(operator="single"), genome=genome)
        for i, genome in enumerate([PARENT, *genomes])
    ]

    def evaluate(asked, rung):
        n = {"x": units, "y": units}
        return [
            Scores(quality=dict(zip("xy", quality(g), strict=True)), n=n, work=work(g), stopped=stopped(g))
            for g in asked
        ]

    for rung in range(rungs):
        archive.measure(candidates, rung, evaluate, budget=4.0)
    return archive


def made(*techniques, **weights):
    return Genome(techniques=techniques, weights=weights)


def evolution_on(archive, seed=0, population=4, **other):
    evolution = Evolution(space(**other), population, np.random.default_rng(seed))
    evolution.look(archive)
    return evolution


def children(operator, parent, other=PARENT, value=len, losing=(), **kwargs):
    evolution = Evolution(space(**kwargs), 4, np.random.default_rng(0))
    return list(evolution._operators[operator](parent, other, value, losing))


# The space


def test_uniform_designs_have_every_size_and_every_technique_alike():
    rng = np.random.default_rng(0)
    drawn = [space().uniform(rng) for _ in range(3000)]
    sizes = Counter(len(genome.techniques) for genome in drawn)
    names = Counter(name for genome in drawn for name in genome.techniques)
    assert set(sizes) == {1, 2, 3} and set(names) == set(POOL_12)
    assert all(abs(count - 1000) < 4 * (3000 * 2 / 9) ** 0.5 for count in sizes.values())
    assert all(abs(count - 500) < 4 * (3000 / 6 * 5 / 6) ** 0.5 for count in names.values())
    for genome in drawn:
        genome.design(POOL_12, EXPERTS)
    assert 0.2 < np.mean([bool(genome.weights) for genome in drawn]) < 0.3


def test_weights_are_drawn_with_standard_deviation_sigma():
    rng = np.random.default_rng(0)
    drawn = np.array([list(space().step((), {}, rng).values()) for _ in range(2000)])
    assert drawn.shape == (2000, 2)
    assert np.allclose(drawn.mean(0), 0, atol=4 * 0.1 / 2000**0.5)
    assert np.allclose(drawn.std(0), 0.1, rtol=0.07)
    moved = np.array([list(space().step((), {"code": 1.0, "facts": -1.0}, rng).values()) for _ in range(2000)])
    assert np.allclose(moved.mean(0), [1, -1], atol=0.01)


def test_a_step_starts_from_the_recipe_where_that_is_known():
    rng, there = np.random.default_rng(0), space(POOL, EXPERTS)
    uniform = [there.step(("uniform experts",), {}, rng)["code"] for _ in range(500)]
    assert np.mean(uniform) == pytest.approx(0.5, abs=0.02)
    assert there.step(("found experts",), {}, rng) is None
    assert there.step(("found experts",), {"code": 1.0}, rng)["code"] == pytest.approx(1.0, abs=0.5)
    assert there.step(("expert by words",), {"code": 1.0}, rng) is None
    assert space(experts=()).step((), {}, rng) is None


def test_singles_are_spread_over_the_groups():
    for seed in range(5):
        singles = [genome.techniques[0] for genome in space().singles(8, np.random.default_rng(seed))]
        assert len(set(singles)) == 8
        assert set(Counter(POOL_12[name].group for name in singles).values()) == {2}
    assert len(space().singles(99, np.random.default_rng(0))) == 12


def test_everything_is_proposed_before_anything_is_repeated():
    small, rng = space(small_pool(2, 2), experts=(), most=2), np.random.default_rng(0)
    taken: set[str] = set()
    while proposal := at_random(small, rng, taken):
        assert proposal.genome.key not in taken
        taken.add(proposal.genome.key)
    assert len(taken) == 2 * 2 + 2 * 2
    assert at_random(space({}, experts=()), rng, {PARENT.key}) is None


# Operators


def test_add_gives_one_technique_of_another_group_and_no_more_than_allowed():
    parent = made("g0-0", code=0.5)
    found = children("add", parent)
    assert {child.technique for child in found} == {name for name in POOL_12 if not name.startswith("g0")}
    assert all(child.weights == {"code": 0.5} and child.techniques[0] == "g0-0" for child in found)
    assert children("add", parent, most=1) == []


def test_remove_takes_each_part_out():
    found = children("remove", made("g0-0", "g1-1", code=0.5))
    assert {child.technique: (child.techniques, dict(child.weights)) for child in found} == {
        "g0-0": (("g1-1",), {"code": 0.5}),
        "g1-1": (("g0-0",), {"code": 0.5}),
        WEIGHTS: (("g0-0", "g1-1"), {}),
    }
    assert children("remove", PARENT) == []


def test_swap_stays_within_the_group():
    found = children("swap", made("g0-0", "g1-1"))
    assert {frozenset(child.techniques) for child in found} == {
        *(frozenset({name, "g1-1"}) for name in ("g0-1", "g0-2")),
        *(frozenset({"g0-0", name}) for name in ("g1-0", "g1-2")),
    }


def test_crossover_takes_each_group_from_one_of_two():
    a, b = made("g0-0", "g1-0", code=1.0), made("g0-1", "g2-2")
    found = children("crossover", a, b)
    for child in found:
        assert set(child.techniques) <= {*a.techniques, *b.techniques}
        space().genome(child).design(POOL_12)
        assert child.weights in ({"code": 1.0}, {})
    assert len({frozenset(child.techniques) for child in found}) > 4
    assert all(len(child.techniques) <= 1 for child in children("crossover", a, b, most=1))


def test_jitter_changes_weights_alone():
    (child,) = children("jitter", made("g0-0", code=0.5, facts=0.1))
    assert child.techniques == ("g0-0",) and set(child.weights) == set(EXPERTS)
    assert children("jitter", made("g0-0"), experts=()) == []


def test_compose_takes_the_best_of_each_group_that_helps():
    gains = {"g0-1": 0.1, "g0-2": 0.3, "g1-0": 0.2, "g2-0": 0.05, "g3-1": 0.4}
    value = lambda names: sum(gains.get(name, -1.0) for name in names)  # noqa: E731
    (child,) = children("compose", made(code=0.5), value=value)
    assert child.techniques == ("g3-1", "g0-2", "g1-0") and child.weights == {"code": 0.5}
    assert children("compose", PARENT, value=lambda names: -1.0)[0].techniques == ()


def test_weights_go_where_one_expert_a_conversation_is_chosen():
    there = Evolution(space(POOL), 4, np.random.default_rng(0))
    found = [there.space.genome(child) for child in there._add(made("vote of 3", code=0.5), PARENT)]
    assert {bool(genome.weights) for genome in found} == {True, False}
    for genome in found:
        assert bool(genome.weights) == (genome.design(POOL).mixture.dispatch == "none")


# Credit


def test_credit_is_the_posterior_of_the_gaussian_process_with_the_same_prior():
    """Independent: conditioning in the space of records (kernel form), where the code solves in the space of parts."""
    rng = np.random.default_rng(0)
    genomes = [space(experts=()).uniform(rng) for _ in range(15)]
    truth = {genome.key: tuple(rng.uniform(0.2, 0.8, 2)) for genome in genomes}
    archive = archive_of(genomes, lambda g: truth.get(g.key, (0.5, 0.5)), units=7)
    parts = (*POOL_12, WEIGHTS)
    features = np.array([[part in r.genome.parts for part in parts] for r in archive.records], float)
    counts = features.sum(1)
    kernel = SPREAD**2 * (features @ features.T + np.outer(counts, counts) + 1)
    gains = np.array([[r.scores.quality[d] - 0.5 for d in "xy"] for r in archive.records])
    weights = np.linalg.solve(kernel + np.eye(len(gains)) * VARIANCE / 7, gains)
    expected = SPREAD**2 * (features.T @ weights + counts @ weights)
    credit = Credit(parts, archive, 4.0)
    count = len(parts)
    assert np.allclose(credit._gains.mean_CD[:count] + credit._gains.mean_CD[count], expected)


def test_what_nobody_tried_varies_more_than_what_is_known():
    archive = archive_of([made("g0-0")], lambda g: (0.6, 0.6), units=1000)
    credit, rng = Credit((*POOL_12, WEIGHTS), archive, 4.0), np.random.default_rng(0)
    draws = [credit.draw(rng) for _ in range(400)]
    known, unknown = ([value((name,)) for value in draws] for name in ("g0-0", "g1-0"))
    assert np.std(known) < np.std(unknown)


def test_a_draw_weighs_losses_of_domains_as_the_fitness_does():
    archive = archive_of([made("g0-0"), made("g1-0")], lambda g: (0.9, 0.1) if g.parts else (0.5, 0.5), units=10**6)
    value = Credit((*POOL_12, WEIGHTS), archive, 4.0).draw(np.random.default_rng(0))
    assert value(("g0-0",)) < -0.1
    assert value(()) == 0.0


def test_a_design_that_is_likely_beyond_the_budget_is_worth_nothing():
    """The work of two techniques multiplies, though nobody has tried them together."""
    dear = [made("g0-0"), made("g1-0"), made("g2-0")]
    work = {dear[0].key: 3.0, dear[1].key: 3.0}
    quality = {genome.key: (0.6, 0.6) for genome in dear}
    archive = archive_of(
        dear, lambda g: quality.get(g.key, (0.5, 0.5)), units=1000, work=lambda g: work.get(g.key, 1.0)
    )
    values = [Credit((*POOL_12, WEIGHTS), archive, 4.0).draw(np.random.default_rng(i)) for i in range(40)]
    assert all(value(("g0-0", "g1-0")) == -np.inf for value in values)
    assert all(value(("g0-0", "g2-0")) > 0 for value in values)


def test_of_who_was_stopped_only_its_work_is_known():
    """The zeros of one that was stopped say nothing about the techniques that were in it."""
    good, stopped = made("g0-0"), made("g0-0", "g1-0")
    archive = archive_of(
        [good, stopped],
        lambda g: (0.0, 0.0) if g == stopped else (0.7, 0.7) if g == good else (0.5, 0.5),
        units=1000,
        work=lambda g: 5.0 if g == stopped else 1.0,
        stopped=lambda g: g == stopped,
    )
    values = [Credit((*POOL_12, WEIGHTS), archive, 4.0).draw(np.random.default_rng(i)) for i in range(40)]
    assert all(value(("g0-0",)) > 0.1 for value in values)
    assert all(value(("g0-0", "g1-0")) == -np.inf for value in values)


# Evolution


def helpful(genome):
    """g1-1 helps alone and in company, everything else does harm."""
    gain = 0.2 * ("g1-1" in genome.techniques) - 0.1 * sum(name != "g1-1" for name in genome.techniques)
    return 0.5 + gain, 0.5 + gain


def test_a_technique_that_was_good_alone_is_proposed_more_often():
    singles = [made(name) for name in POOL_12]
    evolution = evolution_on(archive_of(singles, helpful), population=2)
    taken = {genome.key for genome in [PARENT, *singles]}
    found = [evolution.propose(taken, []).genome for _ in range(200)]
    used = Counter(name for genome in found for name in genome.techniques)
    assert used.pop("g1-1") > 3 * max(used.values())
    for genome in found:
        genome.design(POOL_12, EXPERTS)


def test_parents_come_from_the_best_of_the_archive():
    singles = [made(name) for name in POOL_12]
    evolution = evolution_on(archive_of(singles, helpful), population=2)
    won = Counter(evolution._tournament().genome.describe() for _ in range(400))
    assert set(won) == {"the parent", "g1-1"}
    assert won["g1-1"] == pytest.approx(300, abs=4 * 75**0.5)  # it wins unless the parent is drawn twice


def test_tournaments_compare_on_the_rung_that_both_have_played():
    """On the first rung `a` looks better than `b`; on the second, which only these and the parent play, worse."""
    a, b, c = made("g0-0"), made("g0-1"), made("g0-2")
    quality = {(0, a.key): 0.9, (0, b.key): 0.8, (0, c.key): 0.85, (1, a.key): 0.6, (1, b.key): 0.7}

    def evaluate(asked, rung):
        return [Scores(quality={"x": quality.get((rung, g.key), 0.5)}, n={"x": 10}, work=1.0) for g in asked]

    every = [
        Candidate(id=i, iteration=0, seed=0, search="search", origin=Origin(operator="single"), genome=genome)
        for i, genome in enumerate([PARENT, a, b, c])
    ]
    archive = Archive()
    archive.measure(every, 0, evaluate, 4.0)
    archive.measure(every[:3], 1, evaluate, 4.0)
    evolution = evolution_on(archive, population=4)
    assert evolution._order[2, 1] < evolution._order[1, 1]  # b beats a, who both came higher
    assert evolution._order[1, 0] < evolution._order[3, 0] < evolution._order[2, 0]  # c beats b, and a beats c
    assert [record.genome for record in evolution._survivors] == [b, a, PARENT, c]


def test_operators_that_help_are_used_more_often():
    archive = archive_of([made("g1-1")], helpful)
    children = [("swap", made(name)) for name in POOL_12 if name.startswith("g0")]
    children += [("add", made("g1-1", name)) for name in POOL_12 if not name.startswith("g1")]
    better = {genome.key for operator, genome in children if operator == "add"}

    def evaluate(asked, rung):
        values = [0.8 if genome.key in better else 0.3 for genome in asked]
        return [Scores(quality={"x": x, "y": x}, n={"x": 9, "y": 9}, work=1.0) for x in values]

    more = [
        Candidate(id=i, iteration=1, seed=0, search="search", origin=Origin(operator=op, parents=(1,)), genome=genome)
        for i, (op, genome) in enumerate(children, 2)
    ]
    archive.measure(more, 0, evaluate, 4.0)
    evolution = evolution_on(archive)
    assert evolution._outcomes["add"] == [9, 0] and evolution._outcomes["swap"] == [0, 3]
    used = Counter(evolution.propose(set(), []).origin.operator for _ in range(200))
    assert used["add"] > 3 * used["swap"]


CHOOSING = {
    "chosen": Technique(name="chosen", group="e", says="", patch={"mixture": {"dispatch": "classifier"}}),
    **POOL_12,
}


def test_spared_are_the_experts_of_domains_that_lost():
    """Together and one by one; nothing where the design does not choose, or the domain has no expert."""
    found = children("spare", made("chosen"), losing=("facts", "other", "code"), pool=CHOOSING)
    assert [child.spared for child in found] == [("facts", "code"), ("facts",), ("code",)]
    more = children("spare", Genome(techniques=("chosen",), spared=("facts",)), losing=("facts", "code"), pool=CHOOSING)
    assert {child.spared for child in more} == {("facts", "code")}
    assert children("spare", made("g0-0"), losing=("facts",), pool=CHOOSING) == []


def test_what_lost_in_a_domain_has_its_expert_spared():
    """By a search's own proposals: `facts` is worse with its expert, `code` better."""
    design = made("chosen")

    def evaluate(asked, rung):
        quality = [{"facts": 0.2, "code": 0.9} if genome == design else {"facts": 0.5, "code": 0.5} for genome in asked]
        return [Scores(quality=one, n={"facts": 40, "code": 40}, work=1.0) for one in quality]

    archive = Archive()
    candidates = [
        Candidate(id=i, iteration=0, seed=0, search="search", origin=Origin(operator="single"), genome=genome)
        for i, genome in enumerate([PARENT, design])
    ]
    archive.measure(candidates, 0, evaluate, 4.0)
    evolution = evolution_on(archive, pool=CHOOSING)
    found = [evolution.propose({PARENT.key, design.key}, []) for _ in range(200)]
    spared = [one.genome.spared for one in found if one.origin.operator == "spare"]
    assert spared and set(spared) == {("facts",)}


def test_nobody_is_spared_by_a_design_that_does_not_choose():
    rng = np.random.default_rng(0)
    drawn = [space(pool=CHOOSING).uniform(rng) for _ in range(500)]
    assert any(genome.spared for genome in drawn)
    assert all("chosen" in genome.techniques and not genome.weights for genome in drawn if genome.spared)


def test_equal_seeds_give_equal_proposals():
    archive = archive_of([made(name) for name in POOL_12], helpful)
    first, second, other = (
        [evolution.propose(set(), []) for _ in range(10)]
        for evolution in (evolution_on(archive, seed=1), evolution_on(archive, seed=1), evolution_on(archive, seed=2))
    )
    assert first == second != other
