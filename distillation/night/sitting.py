"""The examination: student, baseline and teacher answer the same sealed questions; the gate judges what comes of it.

    found = sit(student, baseline, teacher, sealed, config, answer=…)
    found.criteria                      # for `distillation.validation.gate.judge`

The baseline is compared question by question, by the mean of two values: whether the answer is right, and the
logarithmic score of the expected one, which is proper and tells students apart long before decoded answers do; and
block by block of held-out text, by the same score, since text is to be kept as answers are.

Everybody is asked through a store, so a night that was killed examines nobody twice, and a teacher that is paid for is
asked the sealed questions once for all nights. Sealed answers are never records.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import Field

from distillation.night.text_measures import expected_score, read_text
from distillation.record import Record, asked
from distillation.teachers.local import LocalTeacher
from distillation.validation.asking import continuations
from distillation.validation.bias import BiasConfig, Contrast, bias_criteria, contrasts
from distillation.validation.gate import Criterion
from distillation.validation.grading import kind_of, values
from distillation.validation.robustness import RobustnessConfig, changed, edge_criteria, robustness_criteria
from distillation.validation.safety import SafetyConfig, safety_criteria
from evaluation.language import spread
from evaluation.metric import Values
from phases.dataset import Dataset
from phases.strict import StrictModel

Answers = Callable[[Sequence[Record]], list[str]]
"""One answer a record, in order."""
SEALED = "sealed questions"
FILLER = 64
"""Passages to choose from."""


class ExamConfig(StrictModel):
    """What is examined besides the answers to the sealed questions."""

    max_tokens: int = Field(96, ge=1)
    """Of an answer."""
    text_blocks: int | None = Field(128, ge=0)
    """Blocks of the run's held-out text on which bits per byte are compared; 0: not measured; empty: all."""
    conversations: int = Field(100, ge=0)
    """Held-out conversations of each kind that an agent's student has (`distil.conversations`); 0: none."""
    probe_items: int = Field(96, ge=1)
    """Sealed questions that are put differently, for each way to do so."""
    robustness: RobustnessConfig | None = RobustnessConfig()
    """Typos, casing, framing …; empty: not measured."""
    safety: SafetyConfig | None = SafetyConfig()
    """Harmful requests, planted orders, secrets, rude words; empty: not measured."""
    bias: BiasConfig | None = BiasConfig()
    """Paired prompts that differ in a name; empty: not measured, as is where the teacher is an endpoint."""


@dataclass(frozen=True)
class Examinee:
    """Somebody who is examined."""

    name: str
    answers: Answers
    local: LocalTeacher | None
    """Its model; None: an endpoint, of which neither likelihoods nor text losses can be had."""


@dataclass(frozen=True)
class Exam:
    """What came of it."""

    criteria: tuple[Criterion, ...]
    records: tuple[Record, ...]
    """The sealed questions, each with the teacher's answer where it had no reference."""
    right: dict[str, Values]
    """By examinee, a grade for each sealed question."""
    likelihood: dict[str, Values]
    """By examinee, the logarithmic score of each expected answer (`expected_score`); none for an endpoint's."""
    bits_per_byte: dict[str, float]
    """By examinee; none where text was not measured."""
    blocks: int
    """Of text behind them."""
    contrasts: dict[str, list[Contrast]]
    """By examinee; none where bias was not measured."""


def sit(
    student: Examinee,
    baseline: Examinee,
    teacher: Examinee,
    sealed: Sequence[Record],
    config: ExamConfig,
    *,
    learnt: Sequence[Record] = (),
    data: Dataset | None = None,
    seed: int = 0,
) -> Exam:
    """Examine everybody on everything. `learnt`: training records, whose questions stand before others where there is
    no text. Raises what asking them raises."""
    everybody = (teacher, student, baseline)
    said = teacher.answers(sealed)
    records = _answered(sealed, said)
    right = {teacher.name: values(records, said)}
    right |= {one.name: values(records, one.answers(records)) for one in (student, baseline)}
    ours, theirs = right[student.name], right[teacher.name]
    criteria = [Criterion("answers", ours, theirs, right[baseline.name], kind_of(records), items=SEALED)]
    models = {one.name: one.local for one in everybody if one.local is not None} if teacher.local is not None else {}
    likely = {name: expected_score(model, records) for name, model in models.items()}
    if likely:
        probable = likely[student.name], likely[teacher.name], likely[baseline.name]
        criteria.append(Criterion("likelihood", *probable, "graded", "guard", items=SEALED))
    bits: dict[str, float] = {}
    blocks = 0
    if data is not None and config.text_blocks != 0 and models:
        text = read_text(models, data, config.text_blocks)
        bits, blocks = text.bits_per_byte, text.blocks
        criteria.append(text.criterion(student.name, teacher.name, baseline.name))
    few = [records[i] for i in spread(len(records), config.probe_items)]
    if config.robustness is not None:
        criteria += edge_criteria(records, ours, theirs, config.robustness)
        filler = _filler(data, learnt, seed)
        criteria += robustness_criteria(few, student.answers, teacher.answers, config.robustness, filler)
    if config.safety is not None:
        ask = (_prompts(student.answers), _prompts(teacher.answers))
        criteria += safety_criteria(*ask, config.safety, prompts=[record.prompt for record in few])
    paired: dict[str, list[Contrast]] = {}
    if config.bias is not None and models:
        bias = config.bias
        paired = {
            name: contrasts(continuations(model.model, model.tokenizer), bias)
            for name, model in models.items()
            if name != baseline.name
        }
        criteria += bias_criteria(paired[student.name], paired[teacher.name], bias)
    return Exam(tuple(criteria), tuple(records), right, likely, bits, blocks, paired)


def ask_ahead(
    answers: Answers,
    sealed: Sequence[Record],
    config: ExamConfig,
    *,
    learnt: Sequence[Record] = (),
    data: Dataset | None = None,
    seed: int = 0,
) -> None:
    """Ask the teacher all that `sit` will: a store keeps the answers. Raises what asking raises."""
    said = answers(sealed)
    records = _answered(sealed, said)
    few = [records[i] for i in spread(len(records), config.probe_items)]
    if config.robustness is not None:
        for new in changed(few, config.robustness, _filler(data, learnt, seed)).values():
            answers(new)
    if config.safety is not None:
        ask = _prompts(answers)
        safety_criteria(ask, ask, config.safety, prompts=[record.prompt for record in few])


def _answered(sealed: Sequence[Record], said: Sequence[str]) -> list[Record]:
    """The teacher's answer is what is expected where nobody knows the right one."""
    return [r if r.reference else replace(r, completion=text) for r, text in zip(sealed, said, strict=True)]


def _prompts(answers: Answers) -> Callable[[Sequence[str]], list[str]]:
    return lambda prompts: answers([asked(prompt) for prompt in prompts])


def _filler(data: Dataset | None, learnt: Sequence[Record], seed: int) -> list[str]:
    """Passages of training text that stand before a question; without a run's data, other questions."""
    if data is None:
        return [learnt[i].prompt for i in spread(len(learnt), FILLER)]
    blocks: Any = data.blocks("train", "text")
    chosen = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(seed))[:FILLER]
    return [str(data.tokenizer.decode(blocks[int(i)].tolist(), skip_special_tokens=True)) for i in chosen]
