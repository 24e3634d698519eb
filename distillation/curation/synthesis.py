"""Groups that lack questions, and new questions for them, written by a teacher.

    for gap in gaps(records, {"tax": 500}):
        made = synthesise(gap, records, teacher, sealed=sealed)

The teacher sees a few questions of the group, drawn by the seed, and writes more of the kind (Self-Instruct, arXiv
2212.10560). What comes is parsed, and refused when it repeats a question that there is, comes too near to one, or
stands in the sealed evaluation. Questions only: answers come from the ordinary way of asking a teacher. A gap that the
teacher cannot fill is left open, and the result says why.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from distillation.curation.decontamination import Decontamination, Sealed, leaking_questions
from distillation.curation.near_duplicates import NearDuplicates, near_duplicates
from distillation.record import Message, Record, asked
from distillation.records.normal import clean
from distillation.teachers.teacher import Answer, Ask, Failure, Teacher
from phases.strict import StrictModel

_NUMBERED = re.compile(r"^\s*\d+[.)]\s+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Gap:
    """A group that has too few questions."""

    group: str
    missing: int


class Synthesis(StrictModel):
    """How new questions are asked for."""

    examples: int = Field(5, ge=1, le=50)
    """Questions of the group that the teacher is shown each time."""
    at_once: int = Field(10, ge=1, le=100)
    """New questions that it is asked for each time."""
    most_asks: int = Field(20, ge=1)
    """Times that a teacher is asked for one gap."""
    max_tokens: int = Field(1024, ge=16)
    """Length of one reply."""
    temperature: float = Field(0.8, ge=0, le=2)
    """Of the teacher's sampling."""


@dataclass(frozen=True)
class Synthesised:
    """What a teacher made for a gap."""

    records: tuple[Record, ...]
    """New questions without answers, their source `synthetic`."""
    refused: Mapping[str, int]
    """Questions that were not taken, and asks that failed, by reason."""
    asks: int
    usd: float | None
    """None: a price is not known."""


def gaps(records: Iterable[Record], wanted: Mapping[str, int]) -> list[Gap]:
    """The groups that have fewer questions than wanted, and how many they lack."""
    counts = Counter(record.group for record in records)
    return [Gap(group, n - counts[group]) for group, n in sorted(wanted.items()) if counts[group] < n]


def synthesise(
    gap: Gap,
    records: Sequence[Record],
    teacher: Teacher,
    *,
    sealed: Sequence[Sealed] = (),
    seed: int = 0,
    config: Synthesis | None = None,
    alike: NearDuplicates | None = None,
    leaks: Decontamination | None = None,
) -> Synthesised:
    """New questions for a gap. A group without a single question gives none: there is nothing to show."""
    config, alike, leaks = config or Synthesis(), alike or NearDuplicates(), leaks or Decontamination()
    known = [record.prompt for record in records if record.group == gap.group]
    if not known:
        return Synthesised((), {"the group has no question to show": gap.missing}, 0, 0.0)
    made: list[str] = []
    refused: Counter[str] = Counter()
    usd: float | None = 0.0
    for number in range(config.most_asks):
        reply = _reply(teacher, _ask(known, gap, config, seed, number))
        if isinstance(reply, Failure):
            refused[f"teacher: {reply.reason}"] += 1
            if reply.lasting:
                break
            continue
        usd = None if usd is None or reply.usd is None else usd + reply.usd
        found = parse(reply)
        if not found:
            refused["replies without a numbered question"] += 1
        made += _fresh(found, [*known, *made], sealed, alike, leaks, refused)
        if len(made) >= gap.missing:
            break
    taken = made[: gap.missing]
    new = tuple(asked(t, group=gap.group, source="synthetic", more={"written_by": teacher.name}) for t in taken)
    return Synthesised(new, dict(+refused), number + 1, usd)


def parse(answer: Answer) -> list[str]:
    """The numbered questions of a reply; the last of one that was cut off is left out."""
    parts = _NUMBERED.split(answer.text)[1:]
    if answer.finish == "length":
        parts = parts[:-1]
    return [text for part in parts if (text := clean(part).strip())]


def _ask(known: Sequence[str], gap: Gap, config: Synthesis, seed: int, number: int) -> Ask:
    ranked = sorted(known, key=lambda text: hashlib.sha256(f"{seed}\0{number}\0{text}".encode()).digest())
    shown = "\n".join(f"{i}. {text}" for i, text in enumerate(ranked[: config.examples], start=1))
    wording = (
        f"Here are questions of the kind '{gap.group}':\n\n{shown}\n\nWrite {config.at_once} new questions of the same "
        "kind, as different from these and from each other as you can. Number them 1., 2., 3. and so on, and write "
        "nothing else: no answers."
    )
    return Ask((Message("user", wording),), config.max_tokens, config.temperature, seed * 1_000_003 + number)


def _reply(teacher: Teacher, ask: Ask) -> Answer | Failure:
    for _, reply in teacher.answer([ask]):
        return reply
    return Failure("no reply", lasting=False)


def _fresh(
    found: list[str],
    known: list[str],
    sealed: Sequence[Sealed],
    alike: NearDuplicates,
    leaks: Decontamination,
    refused: Counter[str],
) -> list[str]:
    """The new questions that are like no earlier one and not sealed."""
    leaking = set(leaking_questions(found, known, sealed, leaks))
    refused["in the sealed evaluation"] += len(leaking)
    clear = [text for i, text in enumerate(found) if i not in leaking]
    keep = near_duplicates([*known, *clear], alike, seed=0).keep[len(known) :]
    refused["like a question that there is"] += int((~keep).sum())
    return [text for text, kept in zip(clear, keep, strict=True) if kept]
