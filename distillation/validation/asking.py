"""A model as the measures want it: questions in, one answer each; prompts with continuations in, log-likelihoods out.

student = LocalTeacher(LocalTeacherConfig(checkpoint=path, licence="own"))
criteria = robustness_criteria(records, record_answers(student, 64), record_answers(teacher, 64), config, texts)
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from distillation.record import Message, Record
from distillation.teachers.teacher import Ask, Failure, Teacher
from distillation.validation.bias import Likelihood
from phases.decoding import encode
from phases.errors import DataError
from phases.probe import Batch, answer_losses


def record_answers(teacher: Teacher, max_tokens: int) -> Callable[[Sequence[Record]], list[str]]:
    """Greedy answers to records. A failure is an error: a missing answer graded as wrong would judge the network."""
    return lambda records: _texts(teacher, [Ask(record.messages, max_tokens) for record in records])


def prompt_answers(teacher: Teacher, max_tokens: int) -> Callable[[Sequence[str]], list[str]]:
    """Greedy answers to prompts of one turn."""
    return lambda prompts: _texts(teacher, [Ask((Message("user", prompt),), max_tokens) for prompt in prompts])


def continuations(model: Any, tokenizer: Any, batch: int = 64) -> Likelihood:
    """Mean log-likelihood a token of continuations in running text, without a chat template."""

    def likelihood(asked: Sequence[tuple[str, str]]) -> list[float]:
        rows = [(encode(tokenizer, prompt), encode(tokenizer, end)) for prompt, end in asked]
        parts = [_batch(rows[start : start + batch], start) for start in range(0, len(rows), batch)]
        return [-float(nats) for nats in answer_losses(model, parts)[0]]

    return likelihood


def _batch(rows: Sequence[tuple[list[int], list[int]]], start: int) -> Batch:
    """Right-padded rows, the continuation's tokens marked."""
    length = max(len(prompt) + len(end) for prompt, end in rows)
    tokens_BT = torch.zeros(len(rows), length, dtype=torch.long)
    marks_BT = torch.zeros(len(rows), length, dtype=torch.bool)
    for row, (prompt, end) in enumerate(rows):
        tokens_BT[row, : len(prompt) + len(end)] = torch.tensor(prompt + end)
        marks_BT[row, len(prompt) : len(prompt) + len(end)] = True
    return Batch(tokens_BT, marks_BT, list(range(start, start + len(rows))))


def _texts(teacher: Teacher, asks: Sequence[Ask]) -> list[str]:
    found: dict[int, str] = {}
    for index, answer in teacher.answer(asks):
        if isinstance(answer, Failure):
            raise DataError(f"{teacher.name} could not answer question {index + 1} of {len(asks)}: {answer.reason}")
        found[index] = answer.text
    if len(found) != len(asks):
        raise DataError(f"{teacher.name} gave {len(found)} answers to {len(asks)} questions; ask it again")
    return [found[index] for index in range(len(asks))]
