"""A model as the probe of bias wants it: prompts with continuations in, log-likelihoods out.

contrasts(continuations(model, tokenizer), config)
"""

from collections.abc import Sequence
from typing import Any

import torch

from distillation.validation.bias import Likelihood
from phases.decoding import encode
from phases.probe import Batch, answer_losses


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
