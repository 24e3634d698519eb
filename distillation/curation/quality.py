"""The quality score: ten points less what is found (`findings.py`); below the threshold a record is left out.

    judged = judge(record, Quality())          # Judged(score=5.0, findings=("wrong answer",))
    kept, step = keep_good(records, Quality())

A score is a sum of named findings, so that each can be acted on: the step counts them with what to do. Nothing here
asks a model. Records without an answer are judged by their question alone: a teacher is still to be asked.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from distillation.curation.findings import FINDINGS, Finding, Limits, Seen
from distillation.curation.step import Step, taken_out
from distillation.record import Record
from phases.strict import StrictModel

BEST = 10.0
NO_ANSWER = "no answer"
ADVICE = {finding.name: finding.advice for finding in FINDINGS} | {NO_ANSWER: "ask a teacher"}


class Quality(StrictModel):
    """What a record has to be like."""

    threshold: float = Field(8.0, ge=0, le=BEST)
    """Points of ten that a record needs to stay."""
    answered: bool = False
    """Whether a record without an answer is left out."""
    prompt_words: tuple[int, int] = (1, 2000)
    """The fewest and the most words of a question."""
    answer_words: tuple[int, int] = (1, 2000)
    """The fewest and the most words of an answer."""
    points: Mapping[str, float] = Field({})
    """Own points by finding; 0 ignores it."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = sorted(set(self.points) - set(ADVICE))
        if unknown:
            raise ValueError(f"unknown finding '{unknown[0]}' in points; there are: {', '.join(ADVICE)}")
        for least, most in (self.prompt_words, self.answer_words):
            if not 0 <= least <= most:
                raise ValueError("give the fewest words first, then the most")
        return self


@dataclass(frozen=True, slots=True)
class Judged:
    """A record's score and what it is made of."""

    score: float
    """0 to 10."""
    findings: tuple[str, ...]


def judge(record: Record, config: Quality) -> Judged:
    """The score of one record."""
    return _judge(record, config, _tests(config), Limits(*config.prompt_words, *config.answer_words))


def keep_good(records: Sequence[Record], config: Quality) -> tuple[list[Record], Step]:
    """The records that reach the threshold. Of the others the dearest finding is the reason."""
    tests, limits = _tests(config), Limits(*config.prompt_words, *config.answer_words)
    judged = [_judge(record, config, tests, limits) for record in records]
    reasons = {i: _reason(j, config) for i, j in enumerate(judged) if j.score < config.threshold}
    stay = Counter(name for i, j in enumerate(judged) if i not in reasons for name in j.findings)
    figures = {"mean score": sum(j.score for j in judged) / len(judged)} if judged else {}
    return taken_out("quality", records, reasons, findings=dict(stay), figures=figures)


def _tests(config: Quality) -> list[tuple[Finding, float]]:
    """The findings that cost points, with these."""
    points = [(finding, config.points.get(finding.name, finding.points)) for finding in FINDINGS]
    return [(finding, cost) for finding, cost in points if cost > 0]


def _judge(record: Record, config: Quality, tests: Sequence[tuple[Finding, float]], limits: Limits) -> Judged:
    seen = Seen(record)
    answered = bool(record.completion.strip())
    found = [(f.name, cost) for f, cost in tests if (answered or not f.of_answer) and f.test(seen, limits)]
    if config.answered and not answered:
        found.append((NO_ANSWER, config.points.get(NO_ANSWER, BEST)))
    return Judged(max(0.0, BEST - sum(cost for _, cost in found)), tuple(name for name, _ in found))


def _reason(judged: Judged, config: Quality) -> str:
    """The dearest finding, with its advice."""
    points = {finding.name: config.points.get(finding.name, finding.points) for finding in FINDINGS}
    worst = max(judged.findings, key=lambda name: points.get(name, BEST))
    return f"{worst} ({ADVICE[worst]})"
