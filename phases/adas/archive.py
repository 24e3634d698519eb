"""The archive: every design that a search tried, one JSON line for each rung that it played, written before it goes on.

    archive = Archive(Path("archive.jsonl"))
    archive.measure(candidates, 0, evaluate, budget=4.0)     # records, which are in the file by now
    archive.ordered[0], archive.units

A rung is a number of units that a candidate plays (successive halving, `phases.adas.search`). A search is a pure
function of its seed and of the scores that it is told, so the archive is also the resume log: after a crash the search
is run again from the start, finds its scores here and ends as if nothing had happened. A last line that was cut off is
dropped; a line that does not belong to this search is an error. Equal genomes are measured once a rung.

Scores of different rungs are never compared. Two candidates are compared on the highest rung that both have played.
Where all have to stand in one order, that is no order (a before b before c before a), so there the one that came higher
stands before the one that did not: it has been compared with others of its iteration and was among the best.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, model_validator

from phases.adas.genome import PARENT, Genome
from phases.adas.pareto import Point, ranks
from phases.errors import CheckpointError
from phases.json_lines import append_lines, read_lines
from phases.strict import StrictModel

T = TypeVar("T")
VARIANCE = 0.1
"""Of one unit's difference to the parent, which plays the same units: one in ten comes out otherwise."""


class Scores(StrictModel):
    """What became of a design on the units of one rung."""

    quality: dict[str, float] = Field(min_length=1)
    """Share that was right, by domain; 0 of one that was stopped, of which nothing is known."""
    n: dict[str, int]
    """Units that were played, by domain."""
    work: float = Field(ge=0)
    """Tokens through layers, as a multiple of the parent's; at least, where it was stopped."""
    stopped: bool = False
    """Whether it was beyond the budget before it had played its units."""

    @model_validator(mode="after")
    def _same_domains(self) -> Self:
        if set(self.quality) != set(self.n) or min(self.n.values()) < 1:
            raise ValueError("every domain needs a quality and at least one unit")
        return self

    @property
    def mean(self) -> float:
        """Mean quality over the domains."""
        return sum(self.quality.values()) / len(self.quality)

    @property
    def units(self) -> int:
        """Units that were played."""
        return sum(self.n.values())


Evaluate = Callable[[Sequence[Genome], int], list[Scores]]
"""Scores of a batch of genomes on a rung (0: fewest units). A genome's do not depend on who shares its batch."""
Known = dict[tuple[int, str], Scores]
"""Scores by rung and genome's key."""


def fitness(scores: Scores, parent: Scores) -> float:
    """Mean quality, less what is lost on domains that are worse than the parent's by more than one standard error.

    The gate wants at least the parent everywhere, so what one domain loses is not bought back by another. But a single
    unit that comes out otherwise is no loss yet: of few, a design that changes nothing there would mostly seem to lose.
    """
    lost = 0.0
    for domain, kept in parent.quality.items():
        lost += max(0.0, kept - scores.quality[domain] - (VARIANCE / scores.n[domain]) ** 0.5)
    return scores.mean - lost


def losing(scores: Scores, parent: Scores) -> tuple[str, ...]:
    """Domains in which a design is worse than the parent, by however little; the worst first."""
    gains = {domain: scores.quality[domain] - kept for domain, kept in parent.quality.items()}
    return tuple(sorted((domain for domain in gains if gains[domain] < 0), key=gains.__getitem__))


class Origin(StrictModel):
    """How a candidate was proposed."""

    operator: str
    """`parent`, `single`, an operator of evolution, `random`, or `model`."""
    parents: tuple[int, ...] = ()
    """Candidates that it was made from."""
    technique: str = ""
    """What was added, put in or taken out."""
    thought: str = ""
    """The model's reason."""
    fallback: str = ""
    """Why the model's own proposal was not taken."""


class Candidate(StrictModel):
    """One candidate before it is measured."""

    id: int
    """Number within its search, from 0; that is the parent."""
    iteration: int
    seed: int
    search: Literal["search", "random"]
    """The search, or its control."""
    origin: Origin
    genome: Genome


class Record(Candidate):
    """A candidate that has played a rung."""

    rung: int
    scores: Scores
    fitness: float
    feasible: bool
    """Whether its work is within the budget."""
    rank: int
    """Its front on this rung when it was measured, by fitness and work; 0: nobody was better in both."""

    @property
    def point(self) -> Point:
        """(fitness, work)."""
        return self.fitness, self.scores.work

    @property
    def standing(self) -> tuple[bool, float, int]:
        """Sorts records of one rung from worst, beyond the budget, to best; of equals the earlier is better."""
        return self.feasible, self.fitness, -self.id


class Archive:
    """The records of one search: in memory, and appended to a file when there is one."""

    def __init__(self, path: Path | None = None, known: Known | None = None) -> None:
        """`known` is shared by searches that measure the same way."""
        self.records: list[Record] = []
        self.path = path
        self.units = 0
        """Units that this search played: those of each genome once a rung, whoever measured them."""
        self._known = {} if known is None else known
        self._recorded = read_lines(path, Record.model_validate) if path else []
        self._played: set[tuple[int, str]] = set()
        for record in self._recorded:
            self._known.setdefault((record.rung, record.genome.key), record.scores)

    def measure(self, candidates: Sequence[Candidate], rung: int, evaluate: Evaluate, budget: float) -> list[Record]:
        """Records of the candidates, in order: from the file, from equal genomes, else measured and appended.

        The parent is the first candidate of every rung. Raises `CheckpointError` for a file of another search.
        """
        genomes = {(rung, candidate.genome.key): candidate.genome for candidate in candidates}
        unknown = {key: genome for key, genome in genomes.items() if key not in self._known}
        if unknown:
            self._known |= dict(zip(unknown, evaluate(list(unknown.values()), rung), strict=True))
        self.units += sum(self._known[key].units for key in genomes if key not in self._played)
        self._played |= set(genomes)
        new = self._ranked([self._record(candidate, rung, budget) for candidate in candidates], rung)
        done = self._recorded[len(self.records) : len(self.records) + len(new)]
        for old, record in zip(done, new, strict=False):
            if old != record:
                raise CheckpointError(f"{self.path}: candidate {old.id} is not of this search; delete the file")
        if self.path is not None:
            append_lines(self.path, (record.model_dump_json() for record in new[len(done) :]))
        self.records += new
        return new

    def on(self, rung: int) -> list[Record]:
        """Who has played a rung, in the order of playing."""
        return [record for record in self.records if record.rung == rung]

    def parent(self, rung: int) -> Record:
        """The agent as it was, on a rung."""
        return next(record for record in self.records if record.rung == rung)

    @property
    def latest(self) -> Mapping[int, Record]:
        """Each candidate's record on the highest rung that it has played, by its number."""
        return {record.id: record for record in self.records}

    @property
    def ordered(self) -> list[Record]:
        """Every candidate from best to worst: within the budget first, then the higher rung, then fitness on it."""
        every = self.latest.values()
        return sorted(every, key=lambda record: (record.feasible, record.rung, record.standing), reverse=True)

    def _record(self, candidate: Candidate, rung: int, budget: float) -> Record:
        scores, parent = (self._known[rung, genome.key] for genome in (candidate.genome, PARENT))
        value, feasible = fitness(scores, parent), scores.work <= budget
        return Record(**dict(candidate), rung=rung, scores=scores, fitness=value, feasible=feasible, rank=0)

    def _ranked(self, new: Sequence[Record], rung: int) -> list[Record]:
        found = front_ranks([*self.on(rung), *new])[-len(new) :]
        return [record.model_copy(update={"rank": rank}) for record, rank in zip(new, found, strict=True)]


def front_ranks(records: Sequence[Record]) -> list[int]:
    """Number of each record's front among all of one rung, the parent first, by fitness and work.

    As in NSGA-II with constraints: whoever is worse than the parent comes after all who are not, however cheap it is,
    and whoever is beyond the budget comes after these.
    """
    least = records[0].fitness
    tiers = [2 if not record.feasible else int(record.fitness < least) for record in records]
    found, first = [0] * len(records), 0
    for tier in sorted(set(tiers)):
        members = [i for i, own in enumerate(tiers) if own == tier]
        own_ranks = ranks([records[i].point for i in members])
        for i, rank in zip(members, own_ranks, strict=True):
            found[i] = first + rank
        first += 1 + max(own_ranks)
    return found
