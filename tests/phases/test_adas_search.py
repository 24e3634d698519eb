"""The search on landscapes whose best design is known: better than chance, repeatable, resumable, fairly controlled."""

import itertools
import zlib

import numpy as np
import pytest

from phases.adas.archive import Archive, Scores, fitness
from phases.adas.genome import PARENT, Genome
from phases.adas.pool import POOL
from phases.adas.search import SearchConfig, random_search, search
from phases.adas.technique import Technique
from phases.errors import CheckpointError, ConfigError

EXPERTS = ("code", "facts")
DOMAINS = ("x", "y", "z")
GROUPS, EACH = 12, 4
CONFIG = SearchConfig(iterations=10, population=8, singles=24, rungs=(8, 24, 72), max_techniques=4, budget=4.0)
SMALL = CONFIG.model_copy(update={"iterations": 4, "population": 6, "singles": 6})


class Landscape:
    """Gains of 48 techniques in 12 groups add up; one in four helps, the others do harm; pairs harm each other.

    Four techniques are planted that help most and harm nobody: together they are the best design there is. Units are
    right or wrong by chance, the same for everybody where designs do not differ.
    """

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.seed = seed
        names = [f"g{g}-{i}" for g in range(GROUPS) for i in range(EACH)]
        self.pool = {
            name: Technique(name=name, group=name.split("-")[0], says="", patch={"decoding": {"temperature": 1.0 + i}})
            for i, name in enumerate(names)
        }
        self.best = tuple(f"g{g}-{rng.integers(EACH)}" for g in rng.permutation(GROUPS)[:4])
        touched = {name: rng.permutation(3) < rng.integers(1, 4) for name in names}
        size = {name: rng.uniform(0.01, 0.05) if rng.random() < 0.25 else -rng.uniform(0, 0.2) for name in names}
        self.gains = {name: touched[name] * size[name] for name in names} | dict.fromkeys(self.best, np.full(3, 0.08))
        self.work = {name: float(rng.choice([1.0, 1.2, 3.0])) for name in names} | dict.fromkeys(self.best, 1.3)
        pairs = [pair for pair in itertools.combinations(names, 2) if not set(pair) <= set(self.best)]
        self.harm = {frozenset(pairs[i]): 0.1 for i in rng.permutation(len(pairs))[:60]}

    def chances(self, genome):
        harm = sum(self.harm.get(frozenset(pair), 0.0) for pair in itertools.combinations(genome.techniques, 2))
        return np.clip(sum((self.gains[name] for name in genome.techniques), np.full(3, 0.5)) - harm, 0.0, 1.0)

    def scores(self, genome, chances, units):
        return Scores(
            quality=dict(zip(DOMAINS, map(float, chances), strict=True)),
            n=dict.fromkeys(DOMAINS, units),
            work=float(np.prod([self.work[name] for name in genome.techniques])),
        )

    def true_fitness(self, genome):
        ours, parents = (self.scores(one, self.chances(one), 10**12) for one in (genome, PARENT))
        return fitness(ours, parents)

    def __call__(self, genomes, rung):
        units = CONFIG.rungs[rung]
        shared = np.random.default_rng([self.seed, rung]).random((3, units))
        found = []
        for genome in genomes:
            own = np.random.default_rng([self.seed, rung, zlib.crc32(genome.key.encode())])
            luck = np.where(own.random((3, units)) < 0.3 * bool(genome.parts), own.random((3, units)), shared)
            found.append(self.scores(genome, (luck < self.chances(genome)[:, None]).mean(axis=1), units))
        return found


LAND = Landscape(0)


def ours(seed=0, archive=None, config=SMALL, land=LAND, evaluate=None, **kwargs):
    archive = archive or Archive()
    return search(land.pool, EXPERTS, evaluate or land, config, seed, archive, **kwargs)


def at_random(units, seed=0, archive=None, config=SMALL, land=LAND, evaluate=None):
    return random_search(land.pool, EXPERTS, evaluate or land, config, seed, archive or Archive(), units)


def test_search_beats_random_at_equal_units():
    """Over 24 landscapes, by the true fitness of what each calls its best; paired, the difference over two errors."""
    pairs = []
    for seed in range(24):
        land = Landscape(seed)
        found = ours(seed, config=CONFIG, land=land)
        control = at_random(found.units, seed, config=CONFIG, land=land)
        assert found.units <= control.units < found.units + sum(3 * n for n in CONFIG.rungs)
        pairs.append([land.true_fitness(one.best.genome) for one in (found, control)])
    mine, theirs = np.transpose(pairs)
    difference = mine - theirs
    error = difference.std(ddof=1) / len(difference) ** 0.5
    assert difference.mean() > 2 * error, f"{difference.mean():.3f} ± {error:.3f}"
    best = land.true_fitness(Genome(techniques=land.best))
    assert best == pytest.approx(0.5 + 4 * 0.08)
    assert mine.mean() - 0.5 > 0.5 * (best - 0.5), f"{mine.mean():.3f} of {best:.3f}"


def test_the_planted_design_is_the_best_there_is():
    """No design of up to four techniques is fitter: without pairs' harm gains add up, and these are the largest."""
    for seed in range(5):
        land = Landscape(seed)
        rng = np.random.default_rng(seed)
        best = land.true_fitness(Genome(techniques=land.best))
        assert all(max(land.gains[name]) <= 0.08 for name in land.pool)
        for _ in range(200):
            names = [f"g{g}-{rng.integers(EACH)}" for g in rng.permutation(GROUPS)[: rng.integers(1, 5)]]
            assert land.true_fitness(Genome(techniques=tuple(names))) <= best + 1e-12


def test_the_first_iteration_holds_the_parent_and_single_techniques_of_many_groups():
    first = [record for record in ours().archive.on(0) if record.iteration == 0]
    assert first[0].genome == PARENT and first[0].origin.operator == "parent"
    assert [len(record.genome.techniques) for record in first[1:]] == [1] * 6
    assert len({LAND.pool[record.genome.techniques[0]].group for record in first[1:]}) == 6


@pytest.mark.parametrize(("eta", "counts"), [(2, [6, 3, 2]), (3, [6, 2, 1])])
def test_one_in_eta_goes_on(eta, counts):
    config = SMALL.model_copy(update={"eta": eta, "budget": 1000.0})
    archive = ours(config=config).archive
    for iteration in range(1, config.iterations):
        on = [[r for r in archive.on(rung) if r.iteration == iteration] for rung in range(3)]
        assert [len(records) for records in on] == counts
        for lower, higher in itertools.pairwise(on):
            ids = {record.id for record in higher}
            least = min(record.fitness for record in lower if record.id in ids)
            assert least >= max(record.fitness for record in lower if record.id not in ids)
    assert archive.units == 3 * sum(
        units * (1 + config.iterations * count) for units, count in zip(CONFIG.rungs, counts, strict=True)
    )


def test_whoever_is_beyond_the_budget_goes_no_further_and_is_not_the_best():
    found = ours(config=SMALL.model_copy(update={"budget": 1.25}))
    dear = {record.id for record in found.archive.on(0) if not record.feasible}
    assert dear and not dear & {record.id for record in found.archive.on(1)}
    assert found.best.scores.work <= 1.25
    assert all(record.scores.work > 1.25 for record in found.archive.on(0) if record.id in dear)


def test_where_everything_does_harm_the_parent_is_the_best():
    def harmful(genomes, rung):
        return [LAND.scores(g, np.full(3, 0.5 - 0.1 * len(g.parts)), CONFIG.rungs[rung]) for g in genomes]

    assert ours(evaluate=harmful).best.genome == PARENT
    assert at_random(500, evaluate=harmful).best.genome == PARENT


def test_nothing_is_proposed_twice_and_equal_genomes_are_measured_once():
    measured = []

    def watch(genomes, rung):
        measured.extend((rung, genome.key) for genome in genomes)
        return LAND(genomes, rung)

    known = {}
    found = ours(archive=Archive(known=known), evaluate=watch)
    keys = [record.genome.key for record in found.archive.on(0)]
    assert len(keys) == len(set(keys)) == 1 + 4 * 6
    control = at_random(found.units, archive=Archive(known=known), evaluate=watch)
    assert len(measured) == len(set(measured))
    assert control.archive.records[0].genome == PARENT


def test_a_small_space_is_searched_through_and_then_it_ends():
    pool = {name: LAND.pool[name] for name in ("g0-0", "g0-1", "g1-0")}
    found = search(pool, (), LAND, SMALL, 0, Archive())
    assert len(found.archive.on(0)) == 1 + 3 + 2
    control = random_search(pool, (), LAND, SMALL, 0, Archive(), 10**6)
    assert len(control.archive.on(0)) == 1 + 3 + 2
    assert search({}, (), LAND, SMALL, 0, Archive()).best.genome == PARENT


def test_equal_seeds_give_equal_archives_and_others_do_not():
    assert ours(3).archive.records == ours(3).archive.records != ours(4).archive.records
    assert at_random(999, 3).archive.records == at_random(999, 3).archive.records


@pytest.mark.parametrize("kind", ["search", "random"])
def test_killed_at_any_line_it_ends_with_the_same_bytes(tmp_path, kind):
    config = SMALL.model_copy(update={"iterations": 3, "population": 4, "singles": 4})

    def run(path):
        archive = Archive(path)
        return ours(archive=archive, config=config) if kind == "search" else at_random(400, 0, archive, config)

    whole_units = run(tmp_path / "whole").units
    whole = (tmp_path / "whole").read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in range(len(lines) + 1):
        (tmp_path / "torn").write_bytes(b"".join(lines[:kept]) + b'{"id": 1'[: 8 * (kept % 2)])
        assert run(tmp_path / "torn").units == whole_units
        assert (tmp_path / "torn").read_bytes() == whole


def test_a_killed_search_measures_only_what_is_missing(tmp_path):
    left = iter(range(4))

    def dying(genomes, rung):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return LAND(genomes, rung)

    with pytest.raises(KeyboardInterrupt):
        ours(archive=Archive(tmp_path / "a"), evaluate=dying)
    assert len((tmp_path / "a").read_text().splitlines()) == 3 + 6
    whole = ours().archive.records
    assert ours(archive=Archive(tmp_path / "a")).archive.records == whole
    assert ours(archive=Archive(tmp_path / "a"), evaluate=lambda *_: 1 / 0).archive.records == whole


def test_an_archive_of_another_search_is_refused(tmp_path):
    ours(0, Archive(tmp_path / "a"))
    with pytest.raises(CheckpointError, match="candidate 0 is not of this search"):
        ours(1, Archive(tmp_path / "a"))
    with pytest.raises(CheckpointError, match="candidate 0 is not of this search"):
        at_random(999, 0, Archive(tmp_path / "a"))


def test_progress_gets_every_record():
    seen = []
    found = ours(progress=seen.extend)
    assert seen == found.archive.records


def test_the_front_is_of_the_highest_rung_and_within_the_budget():
    found = ours(2, config=CONFIG)
    points = [record.point for record in found.archive.on(2) if record.feasible]
    assert [record.rung for record in found.front] == [2] * len(found.front)
    for quality, work in (record.point for record in found.front):
        assert not any(q >= quality and w <= work and (q, w) != (quality, work) for q, w in points)
    assert [r.scores.work for r in found.front] == sorted(r.scores.work for r in found.front)
    won = (CONFIG.budget - found.best.scores.work) * (found.best.fitness - found.archive.parent(2).fitness)
    assert found.hypervolume >= won > 0
    assert found.fallbacks == {}


def test_it_searches_the_real_pool():
    found = search(POOL, EXPERTS, lambda g, r: [LAND.scores(PARENT, np.full(3, 0.5), 5)] * len(g), SMALL, 0, Archive())
    for record in found.archive.records:
        record.genome.design(POOL, EXPERTS)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"rungs": rungs} for rungs in ([], [0, 4], [8, 8], [24, 8])),
        *({"eta": 1}, {"population": 1}, {"singles": 0}, {"budget": 0.5}, {"sigma": 0}, {"iterations": 0}),
        {"max_techniques": 0},
        *({"proposer": "magic"}, {"proposer": {"base_url": "x", "model": "m"}}),
    ],
)
def test_a_wrong_config_is_one_line(wrong):
    with pytest.raises(ConfigError, match=r"^search: [^\n]+$"):
        SearchConfig.parse(wrong, "search")


def test_the_config_survives_json():
    config = SearchConfig.parse({"proposer": {"base_url": "http://127.0.0.1:1/v1", "model": "m"}}, "search")
    assert SearchConfig.model_validate_json(config.model_dump_json()) == config
