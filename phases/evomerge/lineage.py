"""The lineage: every candidate of a search, one JSON line each, written before the search goes on.

A search is a pure function of its seed and of the scores it is told. So the lineage is also the resume log: after a
crash the search is run again from the start, its candidates' scores are read here instead of measured, and it ends
as if nothing had happened. A last line that was cut off is dropped; a line that does not belong to this search is an
error. Equal genomes are measured once.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phases.errors import CheckpointError
from phases.evomerge.genome import Genome
from phases.json_lines import append_lines, read_lines
from phases.strict import StrictModel

Specialities = Mapping[str, float]
Evaluate = Callable[[Sequence[Genome]], list[Specialities]]
"""Scores of a batch: the mean of each speciality for each genome."""


class Candidate(StrictModel):
    """One candidate before it is measured."""

    id: int
    """Number within its search, from 0."""
    generation: int
    seed: int
    search: str
    """`evolution` or `random`."""
    origin: str
    """The baseline's name, or the family whose distribution it was drawn from."""
    genome: Genome
    parents: tuple[int, ...] = ()
    """Candidates whose recombination is the mean it was drawn around."""
    sigma: float | None = None
    """Step size of that distribution; None where there is none."""


class Record(Candidate):
    """A measured candidate."""

    scores: dict[str, float]
    """Mean of each speciality on the validation probe."""
    fitness: float
    """Mean over the specialities."""


class Lineage:
    """The records of one search: in memory, and appended to a file when there is one."""

    def __init__(self, evaluate: Evaluate, path: Path | None = None, known: dict[str, Any] | None = None) -> None:
        """`known` maps genome keys to scores and is shared by searches that measure the same way."""
        self.records: list[Record] = []
        self._evaluate = evaluate
        self._path = path
        self._known = {} if known is None else known
        self._recorded = read_lines(path, Record.model_validate) if path else []
        for record in self._recorded:
            self._known.setdefault(record.genome.key, record.scores)

    def measure(self, candidates: Sequence[Candidate]) -> list[Record]:
        """Records of the candidates, in order: from the file, from equal genomes, else measured and appended."""
        unknown = {c.genome.key: c.genome for c in candidates if c.genome.key not in self._known}
        if unknown:
            self._known |= dict(zip(unknown, self._evaluate(list(unknown.values())), strict=True))
        new = [_record(candidate, self._known[candidate.genome.key]) for candidate in candidates]
        done = self._recorded[len(self.records) : len(self.records) + len(new)]
        for old, record in zip(done, new, strict=False):
            if old != record:
                raise CheckpointError(f"{self._path}: candidate {old.id} is not of this search; delete the file")
        self._append(new[len(done) :])
        self.records += new
        return new

    def _append(self, records: Sequence[Record]) -> None:
        if self._path is None or not records:
            return
        append_lines(self._path, (record.model_dump_json() for record in records))

    @property
    def best(self) -> Record:
        """The fittest candidate; the earliest among equals."""
        return max(self.records, key=lambda record: (record.fitness, -record.id))


def _record(candidate: Candidate, scores: Specialities) -> Record:
    values = dict(scores)
    return Record(**dict(candidate), scores=values, fitness=sum(values.values()) / len(values))
