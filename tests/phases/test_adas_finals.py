"""The finals: more units, the parent among the finalists, and experts spared by which a design loses."""

import pytest

from phases.adas.archive import Archive, Candidate, Origin, Scores
from phases.adas.config import AdasConfig
from phases.adas.finals import Finals
from phases.adas.genome import PARENT, Genome
from phases.adas.search import SearchConfig

CONFIG = AdasConfig(search=SearchConfig(rungs=(10,), budget=2.0), finalists=2, final_units=1000)
CHOOSING = Genome(techniques=("task vector by classifier",))
LUCKY, STEADY = Genome(techniques=("reread",)), Genome(techniques=("1 call",))


class Playing:
    """Scores by genome: (x, y) in the search, in the finals, and its work."""

    def __init__(self, quality):
        self.quality, self.asked = {genome.key: one for genome, one in quality}, []

    def __call__(self, genomes, rung):
        self.asked += [(rung, genome) for genome in genomes]
        n = dict.fromkeys("xy", (10, 1000)[rung])
        found = [self.quality[genome.key] for genome in genomes]
        return [Scores(quality=dict(zip("xy", one[rung], strict=True)), n=n, work=one[2]) for one in found]


def best(*quality):
    playing = Playing([(PARENT, ((0.5, 0.5), (0.5, 0.5), 1.0)), *quality])
    archive = Archive()
    candidates = [
        Candidate(id=i, iteration=0, seed=0, search="search", origin=Origin(operator="single"), genome=genome)
        for i, genome in enumerate([PARENT, *(genome for genome, _ in quality if not genome.spared)])
    ]
    archive.measure(candidates, 0, playing, 2.0)
    return Finals(playing, CONFIG).best(archive), playing


def test_the_finals_correct_a_lucky_search():
    found, playing = best((LUCKY, ((0.9, 0.9), (0.4, 0.4), 1.0)), (STEADY, ((0.6, 0.6), (0.6, 0.6), 1.0)))
    assert found.genome == STEADY and found.quality == {"x": 0.6, "y": 0.6} and found.n == {"x": 1000, "y": 1000}
    assert [genome for rung, genome in playing.asked if rung == 1] == [LUCKY, PARENT, STEADY]


def test_a_search_that_found_nothing_changes_nothing():
    found, _ = best((LUCKY, ((0.9, 0.9), (0.4, 0.4), 1.0)))
    assert found.genome == PARENT


def test_who_is_beyond_the_budget_in_the_finals_is_not_taken():
    found, _ = best((LUCKY, ((0.9, 0.9), (0.9, 0.9), 2.1)), (STEADY, ((0.6, 0.6), (0.6, 0.6), 1.0)))
    assert found.genome == STEADY


def test_experts_by_which_a_design_loses_are_spared():
    spared = CHOOSING.model_copy(update={"spared": ("y",)})
    chosen = CHOOSING, ((0.9, 0.4), (0.9, 0.4), 1.0)
    found, _ = best(chosen, (spared, ((0, 0), (0.9, 0.5), 1.0)))
    assert found.genome == spared and found.fitness == pytest.approx(0.7)
    # It is played like any other, and not taken where it is no better.
    found, _ = best(chosen, (spared, ((0, 0), (0.5, 0.4), 1.0)))
    assert found.genome == CHOOSING


def test_without_a_choice_of_experts_nothing_is_mended():
    found, playing = best((LUCKY, ((0.9, 0.4), (0.9, 0.4), 1.0)))
    assert {genome.key for _, genome in playing.asked} == {PARENT.key, LUCKY.key} and found.genome == LUCKY
