"""The finals of a search: its best designs are played once more, on more conversations, and the best of these is taken.

    finals = Finals(scorer, AdasConfig())
    finals.best(archive)                         # Finding

On the rungs of a search the best of many looks better than it is. The parent is always a finalist: a search that found
nothing better changes nothing. What the finals show to be lost by choosing an expert is mended there: the same design
without the experts of those domains is played as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from phases.adas.archive import Archive, Evaluate, Scores, fitness, losing
from phases.adas.config import AdasConfig
from phases.adas.genome import PARENT, Genome
from phases.adas.pool import POOL
from phases.adas.report import Finding, Searched
from phases.adas.scoring import Job, Setting, score_job
from phases.phase import Pool


@dataclass
class Scorer:
    """Scores of genomes by the pool; work is over the parent's on the same conversations."""

    setting: Setting
    pool: Pool
    budget: float
    """Multiple of the parent's work beyond which a design is stopped."""
    parents: dict[int, Scores] = field(default_factory=dict)
    """The parent's own on every rung, whose work is tokens a conversation."""

    def __call__(self, genomes: Sequence[Genome], rung: int) -> list[Scores]:
        """Scores of a batch on a rung."""
        if rung not in self.parents:
            self.parents[rung] = self.pool(score_job, [Job(self.setting, PARENT.key, rung)])[0]
        others = [genome for genome in genomes if genome != PARENT]
        # In the finals nobody is stopped: their figures are reported.
        last = rung == len(self.setting.units) - 1
        most = None if last else self.budget * self.parents[rung].work
        played = self.pool(score_job, [Job(self.setting, genome.key, rung, most) for genome in others])
        found = dict(zip((genome.key for genome in others), played, strict=True))
        return [self._over(found.get(genome.key, self.parents[rung]), rung) for genome in genomes]

    def _over(self, scores: Scores, rung: int) -> Scores:
        return scores.model_copy(update={"work": scores.work / max(1e-9, self.parents[rung].work)})


class Finals:
    """Plays designs on one more rung."""

    def __init__(self, scorer: Evaluate, config: AdasConfig) -> None:
        self.scorer, self.config = scorer, config
        self.rung = len(config.search.rungs)
        self._known: dict[str, Scores] = {}

    def finding(self, genome: Genome) -> Finding:
        """One design there."""
        scores, parent = (self._scores(one) for one in (genome, PARENT))
        return Finding(
            genome=genome,
            description=genome.describe(),
            quality=scores.quality,
            n=scores.n,
            work=scores.work,
            fitness=fitness(scores, parent),
        )

    def best(self, archive: Archive) -> Finding:
        """The best of a search's finalists, of these with experts spared, and the parent; of equals the first."""
        chosen = [record.genome for record in archive.ordered if record.feasible][: self.config.finalists]
        found = [self.finding(genome) for genome in chosen]
        found += [self.finding(mended) for one in found if (mended := self._mended(one)) is not None]
        found.append(self.finding(PARENT))
        within = [one for one in found if one.work <= self.config.search.budget]
        return max(within, key=lambda one: one.fitness)

    def _mended(self, found: Finding) -> Genome | None:
        """A design that chooses an expert a conversation, without those of the domains that it loses by it."""
        if found.genome.design(POOL).mixture.dispatch == "none":
            return None
        lost = losing(self._scores(found.genome), self._scores(PARENT))
        return (
            found.genome.model_copy(update={"spared": tuple(sorted({*found.genome.spared, *lost}))}) if lost else None
        )

    def _scores(self, genome: Genome) -> Scores:
        if genome.key not in self._known:
            self._known[genome.key] = self.scorer([genome], self.rung)[0]
        return self._known[genome.key]


def searched(archive: Archive) -> Searched:
    """What a search was given, and how it went."""
    best: list[float] = []
    for record in archive.on(0):
        while len(best) <= record.iteration:
            best.append(best[-1] if best else record.fitness)
        if record.feasible:
            best[record.iteration] = max(best[record.iteration], record.fitness)
    return Searched(candidates=len(archive.latest), units=archive.units, best=tuple(best))
