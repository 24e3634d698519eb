"""The archive: fitness by hand, order across rungs, equal genomes once, and a file that a search can go on from."""

import json

import pytest
from pydantic import ValidationError

from phases.adas.archive import Archive, Candidate, Origin, Scores, fitness, front_ranks
from phases.adas.genome import PARENT, Genome
from phases.errors import CheckpointError

UNITS = 10**14
"""So many that nothing is chance."""
QUALITY = {"": (0.5, 0.5), "a": (0.7, 0.5), "b": (0.9, 0.4), "c": (0.8, 0.8), "d": (0.4, 0.4)}
WORK = {"": 1.0, "a": 1.0, "b": 2.0, "c": 5.0, "d": 0.1}


def scores(name, rung=0):
    x, y = QUALITY[name]
    return Scores(quality={"x": x, "y": y}, n=dict.fromkeys("xy", UNITS * 4**rung), work=WORK[name])


class Measuring:
    """Looks scores up, and remembers what was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, genomes, rung):
        self.asked += [(rung, genome.describe()) for genome in genomes]
        return [scores("".join(genome.techniques), rung) for genome in genomes]


def candidates(*names, start=0, seed=0):
    return [
        Candidate(
            id=start + i,
            iteration=0,
            seed=seed,
            search="search",
            origin=Origin(operator="single" if name else "parent"),
            genome=Genome(techniques=(name,)) if name else PARENT,
        )
        for i, name in enumerate(names)
    ]


def filled(path=None, measure=None, known=None):
    archive, measure = Archive(path, known), measure or Measuring()
    every = candidates("", "a", "b", "c", "d")
    for rung, chosen in enumerate([every, every[:3], every[:2]]):
        archive.measure(chosen, rung, measure, budget=4.0)
    return archive


def test_fitness_is_the_mean_less_what_is_lost_on_domains():
    assert fitness(scores("a"), scores("")) == pytest.approx(0.6)
    assert fitness(scores("b"), scores("")) == pytest.approx(0.65 - 0.1)
    assert fitness(scores("d"), scores("")) == pytest.approx(0.4 - 0.2)
    assert fitness(scores(""), scores("")) == pytest.approx(0.5)


def test_what_is_lost_within_a_standard_error_is_not_lost_yet():
    """One in ten units comes out otherwise: of ten, the share has an error of 0.1."""
    parent, design = (Scores(quality={"x": 0.5, "y": y}, n={"x": 10, "y": 10}, work=1.0) for y in (0.9, 0.7))
    assert fitness(design, parent) == pytest.approx(0.6 - (0.2 - 0.1))
    assert fitness(parent.model_copy(update={"quality": {"x": 0.5, "y": 0.85}}), parent) == pytest.approx(0.675)


def test_whoever_is_beyond_the_budget_is_below_all_others():
    on_0 = filled().on(0)
    assert [record.feasible for record in on_0] == [True, True, True, False, True]
    assert [r.genome.describe() for r in sorted(on_0, key=lambda r: r.standing, reverse=True)] == [
        *("a", "b", "the parent", "d", "c")
    ]


def test_fronts_put_the_worse_than_the_parent_and_the_dearer_than_the_budget_last():
    """Alone by fitness and work d (cheap and bad) and c (good and too dear) would be on the first front."""
    on_0 = filled().on(0)
    assert front_ranks(on_0) == [record.rank for record in on_0] == [1, 0, 1 + 0, 3, 2]


def test_in_one_order_the_higher_rung_comes_first():
    archive = filled()
    assert [r.genome.describe() for r in archive.ordered] == ["a", "the parent", "b", "d", "c"]
    assert {number: record.rung for number, record in archive.latest.items()} == {0: 2, 1: 2, 2: 1, 3: 0, 4: 0}


def test_units_are_counted_over_the_rungs_and_equal_genomes_once():
    measure = Measuring()
    archive = filled(measure=measure)
    assert archive.units == 2 * (5 * 1 + 3 * 4 + 2 * 16) * UNITS
    again = archive.measure(candidates("a", "a", start=5), 0, measure, budget=4.0)
    assert archive.units == 98 * UNITS and [record.fitness for record in again] == pytest.approx([0.6, 0.6])
    assert len(measure.asked) == len(set(measure.asked)) == 10


def test_searches_that_measure_alike_share_scores_and_count_their_own_units():
    known, second = {}, Measuring()
    filled(known=known)
    assert filled(known=known, measure=second).units == 98 * UNITS
    assert second.asked == []


def test_a_line_says_everything_about_a_candidate(tmp_path):
    filled(tmp_path / "a.jsonl")
    line = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[1])
    assert line["genome"] == {"techniques": ["a"], "weights": {}, "spared": []}
    assert (line["id"], line["iteration"], line["rung"], line["rank"]) == (1, 0, 0, 0)
    assert line["scores"] == {
        "quality": {"x": 0.7, "y": 0.5},
        "n": {"x": UNITS, "y": UNITS},
        "work": 1.0,
        "stopped": False,
    }
    assert line["origin"]["operator"] == "single" and line["feasible"] is True


@pytest.mark.parametrize("torn", [b"", b'{"id":4,"iter'])
def test_killed_at_any_line_it_ends_with_the_same_bytes(tmp_path, torn):
    filled(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 10
    for kept in range(len(lines) + 1):
        path, measure = tmp_path / "torn.jsonl", Measuring()
        path.write_bytes(b"".join(lines[:kept]) + torn)
        assert filled(path, measure).units == 98 * UNITS
        assert path.read_bytes() == whole and len(measure.asked) == 10 - kept


def test_a_file_of_another_search_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    filled(path)
    with pytest.raises(CheckpointError, match="candidate 0 is not of this search; delete the file"):
        Archive(path).measure(candidates("", seed=1), 0, Measuring(), budget=4.0)
    for foreign in ("[]\n", "no JSON\n", '{"id": 0}\n'):
        path.write_text(foreign)
        with pytest.raises(CheckpointError, match="a line is not a record"):
            Archive(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": {}, "n": {}},
        {"quality": {"x": 0.5}, "n": {"y": 3}},
        {"quality": {"x": 0.5}, "n": {"x": 0}},
        {"work": -1.0},
        {"work": float("inf")},
    ],
)
def test_what_are_no_scores_is_refused(wrong):
    with pytest.raises(ValidationError):
        Scores(**{"quality": {"x": 0.5}, "n": {"x": 3}, "work": 1.0, **wrong})
