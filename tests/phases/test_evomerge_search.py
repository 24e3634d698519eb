"""The search on closed-form fitness: better than chance, deterministic, never losing its best, resumable."""

import numpy as np
import pytest

from phases.errors import CheckpointError
from phases.evomerge.finals import best_distinct, hold_finals
from phases.evomerge.genome import METHODS, WEIGHTED, Genome, baselines
from phases.evomerge.lineage import Lineage
from phases.evomerge.optimiser import Optimiser
from phases.evomerge.search import Budget, evolve, first_generation, random_search
from phases.evomerge.space import Draw, families

NAMES = ("trunk", "a", "b", "c")
BUDGET = Budget(population=8, generations=5, patience=99, sigma=1 / 6)


def bowl(genome: Genome) -> dict[str, float]:
    """A smooth optimum at weights (0.9, 0.2, 0.6) of the linear methods; layer merges are poor."""
    if not genome.weights:
        return {"x": 0.2, "y": 0.2}
    distance = np.sum((np.array(genome.weights) - [0.9, 0.2, 0.6]) ** 2)
    penalty = 0.1 * (genome.method != "linear")
    return {"x": float(np.exp(-distance)) - penalty, "y": float(np.exp(-2 * distance)) - penalty}


def score(genomes):
    return [bowl(genome) for genome in genomes]


def search(seed, budget=BUDGET, methods=METHODS, path=None, evaluate=score):
    lineage = Lineage(evaluate, path)
    evolve(families(methods, 3, 4, "density", seed, 1), NAMES, budget, seed, lineage)
    return lineage


def at_random(seed, evaluations, methods=METHODS):
    lineage = Lineage(score)
    random_search(families(methods, 3, 4, "density", seed, 1), NAMES, BUDGET, seed, lineage, evaluations)
    return lineage


def test_the_first_generation_holds_what_must_be_beaten():
    chosen = first_generation(families(METHODS, 3, 4, "density", 0, 1), NAMES)
    assert list(chosen)[:5] == [*NAMES, "uniform soup"]
    assert [g.method for g in list(chosen.values())[5:]] == list(METHODS[1:])
    assert len(first_generation(families(("linear",), 3, 4, "density", 0, 1), NAMES)) == 5


@pytest.mark.parametrize("generations", [5, 15])
def test_search_beats_random_at_equal_evaluations(generations):
    """Over ten seeds, on a fitness whose optimum is known; both start from the same baselines."""
    budget = Budget(8, generations, 99, 1 / 6)
    ours = [search(seed, budget, WEIGHTED) for seed in range(10)]
    theirs = [at_random(seed, len(ours[0].records), WEIGHTED) for seed in range(10)]
    assert len(ours[0].records) == len(theirs[0].records) == 9 + 8 * (generations - 1)
    assert np.mean([r.best.fitness for r in ours]) > np.mean([r.best.fitness for r in theirs]) + 0.01


def test_search_comes_near_the_optimum():
    best = search(0, Budget(8, 30, 99, 1 / 6)).best
    assert best.fitness > 0.99
    assert best.genome.weights == pytest.approx((0.9, 0.2, 0.6), abs=0.1)


def test_equal_seeds_give_equal_lineages_and_others_do_not():
    assert search(3).records == search(3).records
    assert search(3).records != search(4).records
    assert at_random(3, 40).records == at_random(3, 40).records


def test_the_best_is_never_lost_and_lineage_is_complete():
    lineage = search(1)
    assert lineage.best.fitness == max(r.fitness for r in lineage.records)
    assert [r.id for r in lineage.records] == list(range(11 + 8 * 4))
    drawn = [r for r in lineage.records if r.generation > 1 and r.origin == "weights"]
    assert drawn
    assert all(len(r.parents) == 4 and max(r.parents) < r.id and r.sigma for r in drawn)


def test_every_family_gets_its_turn():
    origins = {r.origin for r in search(0, Budget(8, 16, 99, 1 / 6)).records}
    assert {"weights", "frankenmerge", "dfs"} <= origins


def test_search_stops_when_nothing_gets_better():
    lineage = search(0, Budget(8, 50, 2, 1 / 6), evaluate=lambda genomes: [{"x": 0.5}] * len(genomes))
    assert lineage.records[-1].generation == 2
    assert lineage.best.id == 0


def test_equal_genomes_are_measured_once():
    measured = []

    def count(genomes):
        measured.extend(genome.key for genome in genomes)
        return score(genomes)

    search(0, Budget(8, 10, 99, 1 / 6), ("frankenmerge",), evaluate=count)
    assert len(measured) == len(set(measured))


@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("torn", [b"", b'{"id":9,"gener'])
def test_a_killed_search_ends_as_if_nothing_had_happened(calls, torn, tmp_path):
    whole = search(5, path=tmp_path / "whole.jsonl")
    left = iter(range(calls))

    def dying(genomes):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return score(genomes)

    with pytest.raises(KeyboardInterrupt):
        search(5, path=tmp_path / "torn.jsonl", evaluate=dying)
    with (tmp_path / "torn.jsonl").open("ab") as file:
        file.write(torn)
    resumed = search(5, path=tmp_path / "torn.jsonl")
    assert resumed.records == whole.records
    assert (tmp_path / "torn.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_finished_search_is_replayed_without_measuring(tmp_path):
    whole = search(5, path=tmp_path / "a.jsonl")
    assert search(5, path=tmp_path / "a.jsonl", evaluate=None).records == whole.records


def test_a_lineage_of_another_search_is_refused(tmp_path):
    search(5, path=tmp_path / "a.jsonl")
    with pytest.raises(CheckpointError, match="candidate 0 is not of this search"):
        search(6, path=tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("[]\n")
    with pytest.raises(CheckpointError, match="a line is not a record"):
        search(5, path=tmp_path / "a.jsonl")


@pytest.mark.parametrize("methods", [("linear",), ("linear", "ties"), WEIGHTED, ("frankenmerge",), ("dfs",)])
def test_draws_stay_inside_and_decode(methods):
    family = families(methods, 2, 3, "density", 0, 2)[0]
    optimiser = Optimiser(family, 6, 0.5, seed=0)
    for _ in range(5):
        draws = optimiser.ask()
        assert all(0 <= v <= 1 for draw in draws for v in draw.x)
        assert {family.decode(draw).method for draw in draws} <= set(methods)
        optimiser.tell([0.0] * 6, range(6))  # ties everywhere must not break the strategy


def test_random_draws_cover_the_methods_and_hold_no_surprises():
    methods = {r.genome.method for r in at_random(0, 120).records}
    assert methods == set(METHODS)
    family = families(("frankenmerge",), 2, 4, "density", 0, 1)[0]
    assert family.decode(Draw((), (1, 1, 2, 0, 1))).slices == ((1, 0, 2), (2, 2, 3), (2, 2, 3), (0, 3, 4))
    assert next(iter(baselines(NAMES).values())).weights == (0.0, 0.0, 0.0)


def test_finals_correct_a_lucky_search():
    """The search's small probe flatters one candidate; the finals' probe does not, and the control is treated alike."""
    names = NAMES[:3]
    space = families(("linear",), 2, 4, "density", 0, 1)

    def flattered(genomes):
        return [{"x": 1.0 if g.weights[0] > 1.4 else 0.5 + g.weights[1] / 10} for g in genomes]

    pair = (Lineage(flattered), Lineage(flattered))
    evolve(space, names, BUDGET, 0, pair[0])
    random_search(space, names, BUDGET, 0, pair[1], len(pair[0].records))
    assert pair[1].best.fitness == 1.0
    final = Lineage(lambda genomes: [{"x": g.weights[1] / 2} for g in genomes])
    held = hold_finals({0: pair}, names, 3, final)
    assert list(held.controls) == [*names, "uniform soup"]
    for found in (held.evolution[0], held.random[0]):
        assert found.fitness >= max(control.fitness for control in held.controls.values())
    assert len(final.records) == 4 + 3 + 3
    keys = [record.genome.key for record in best_distinct(pair[0].records * 2, 5)]
    assert len(keys) == len(set(keys)) == 5
