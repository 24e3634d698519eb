"""A language model that proposes designs (the meta agent of ADAS, arXiv 2408.08435), evolution standing by.

    search:
      proposer: {base_url: "https://api.openai.com/v1", model: gpt-5-mini, key_variable: OPENAI_API_KEY}

It is told the pool, the archive's best and worst designs with their scores, and what this iteration has by now, and
answers `{"thought": "…", "techniques": ["…"]}`. A request has some 4,000 tokens and asks for one design.

Evolution proposes instead where the service fails or the answer is of no use (no JSON, a name that the pool does not
have, two of one group, a design that was there before); the archive says why. After `GIVEN_UP` failures in a row nobody
is asked until the next iteration. Requests and answers are kept in `<archive>.exchange.jsonl`, so that a search that
goes on after a crash asks nothing twice.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from phases.adas.archive import Archive, Origin, Record
from phases.adas.endpoint import NoAnswer, Service
from phases.adas.genome import Genome
from phases.adas.proposals import Evolution
from phases.adas.space import Proposal, Space
from phases.agent.wording import clean
from phases.errors import CheckpointError
from phases.json_lines import append_lines, read_lines
from phases.storage import sha256_json
from phases.strict import StrictModel

GIVEN_UP = 3
BEST, WORST = 8, 4
"""Designs that the model is shown."""
THOUGHT_CHARS = 1000
"""Of its reasons, so much is kept in the archive."""
_SYSTEM = """\
You improve a small language-model agent. A design of it is a set of techniques, {most} at most and one of a group at
most; the empty set is the agent as it is. A design's fitness is its mean quality over the domains, less everything that
a domain loses against the agent as it is. Its work may be {budget:g} times the agent's.

Techniques, by group:
{pool}

Propose one design that nobody has tried and that you expect to be fitter than all others: combine what helped, leave
out what did harm, try what is promising and unknown. Answer with one JSON object and nothing else:
{{"thought": "why, in one or two sentences", "techniques": ["name", "name"]}}"""


class ModelSettings(Service):
    """A language model that proposes designs."""

    share: float = Field(0.5, gt=0, le=1)
    """Share of an iteration's proposals that the model is asked for; the rest is evolution's."""


class Exchange(StrictModel):
    """One request, and what became of it."""

    digest: str
    """SHA-256 of address, model and messages."""
    messages: tuple[dict[str, str], ...]
    answer: str
    """What the model said; empty when the service failed."""
    failure: str = ""
    """How the service failed."""


class Guided(Evolution):
    """The first proposals of an iteration are the model's, the others evolution's."""

    def __init__(
        self,
        settings: ModelSettings,
        space: Space,
        population: int,
        rng: np.random.Generator,
        archive: Path | None,
    ) -> None:
        """`archive`: path of its file, beside which the exchange is kept. Raises `ConfigError` without the key."""
        super().__init__(space, population, rng)
        self._settings, self._key = settings, settings.key()
        self._path = archive.with_suffix(".exchange.jsonl") if archive else None
        self._recorded = read_lines(self._path, Exchange.model_validate) if self._path else []
        self._asked = self._failures = 0
        self._share = max(1, round(population * settings.share))
        self._system = _SYSTEM.format(most=space.most, budget=space.budget, pool=_pool(space))
        self._shown = ""

    def look(self, archive: Archive) -> None:
        """Take in what the archive holds by now."""
        super().look(archive)
        self._shown = _show(archive)
        # After a pause as long as an iteration the service gets another chance.
        self._failures = min(self._failures, GIVEN_UP - 1)

    def propose(self, taken: set[str], so_far: list[Genome]) -> Proposal | None:
        """A design that is not among those taken. Raises `CheckpointError` for an exchange of another search."""
        if len(so_far) >= self._share:
            return super().propose(taken, so_far)
        found: Proposal | str = "given up"
        if self._failures < GIVEN_UP:
            said = self._ask(so_far)
            found = said.failure or read_design(said.answer, self.space, taken)
        if isinstance(found, Proposal):
            return found
        instead = super().propose(taken, so_far)
        return instead and Proposal(instead.genome, instead.origin.model_copy(update={"fallback": found}))

    def _ask(self, so_far: list[Genome]) -> Exchange:
        """What the model says to the archive and to what this iteration has by now."""
        also = ["", "Also being tried now:", *(f"- {genome.describe()}" for genome in so_far)] if so_far else []
        user = "\n".join([self._shown, *also])
        messages = [{"role": "system", "content": self._system}, {"role": "user", "content": user}]
        exchange = self._exchange(messages)
        self._failures = self._failures + 1 if exchange.failure else 0
        return exchange

    def _exchange(self, messages: list[dict[str, str]]) -> Exchange:
        """From the file, else by asking; then it is in the file."""
        digest = sha256_json([self._settings.base_url, self._settings.model, messages])
        number, self._asked = self._asked, self._asked + 1
        if number < len(self._recorded):
            if self._recorded[number].digest != digest:
                raise CheckpointError(
                    f"{self._path}: request {number} is not of this search; delete it and the archive"
                )
            return self._recorded[number]
        answer = failure = ""
        try:
            answer = self._settings.ask(messages, self._key)
        except NoAnswer as failed:
            failure = str(failed)
        exchange = Exchange(digest=digest, messages=tuple(messages), answer=answer, failure=failure)
        if self._path:
            append_lines(self._path, [exchange.model_dump_json()])
        return exchange


def read_design(answer: str, space: Space, taken: set[str]) -> Proposal | str:
    """The design that an answer proposes, or what is wrong with it; names may differ in case and spaces."""
    said = _object(answer)
    names = said.get("techniques")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return "no design in the answer"
    folded = {_folded(name): name for name in space.pool}
    known = dict.fromkeys(folded.get(_folded(name), "") for name in names)
    if "" in known:
        return "unknown technique"
    if len({space.pool[name].group for name in known}) < len(known):
        return "two of one group"
    if len(known) > space.most:
        return "too many techniques"
    genome = Genome(techniques=tuple(known))
    if genome.key in taken:
        return "repeated"
    thought = said.get("thought")
    # Cleaned once more: its escapes have become signs only now.
    kept = clean(thought[:THOUGHT_CHARS]) if isinstance(thought, str) else ""
    return Proposal(genome, Origin(operator="model", thought=kept))


def _object(text: str) -> dict[str, Any]:
    """The first JSON object with `techniques` in a text, whatever stands around it; empty where there is none."""
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and "techniques" in found:
            return found
        start = text.find("{", start + 1)
    return {}


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def _pool(space: Space) -> str:
    """Every technique with what it does, a group a line."""
    lines = {
        group: "; ".join(f'"{name}" ({space.pool[name].says})' for name in names)
        for group, names in space.groups.items()
    }
    return "\n".join(f"- {group}: {line}" for group, line in lines.items())


def _show(archive: Archive) -> str:
    """The archive as the model is shown it."""
    ordered = archive.ordered
    best, worst = ordered[:BEST], ordered[max(BEST, len(ordered) - WORST) :]
    lines = ["The agent as it is:", _line(archive.latest[0]), "", "Best designs, the best first:", *map(_line, best)]
    return "\n".join([*lines, *(["", "Worst designs, the worst last:", *map(_line, worst)] if worst else [])])


def _line(record: Record) -> str:
    """One design and its scores."""
    scores = record.scores
    domains = ", ".join(f"{name} {scores.quality[name]:.3f} of {scores.n[name]}" for name in sorted(scores.quality))
    if scores.stopped:
        return f"- {record.genome.describe()}: stopped beyond the budget"
    over = "" if record.feasible else ", beyond the budget"
    return f"- {record.genome.describe()}: fitness {record.fitness:.3f}, work {scores.work:.2f}{over} ({domains})"
