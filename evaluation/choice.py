"""Multiple choice by log-likelihood: the choice that the model finds most likely after the prompt.

Two readings, both reported: the sum of the log-likelihoods (`acc`) favours short choices, so the headline is the sum
per UTF-8 byte of the choice (`acc_bytes`; Gao et al., lm-evaluation-harness). Chance is one over the choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from evaluation.language import token_nats
from phases.decoding import encode
from phases.tasks.item import Item, render_prompt


@dataclass(frozen=True)
class Choices:
    """Whether the favourite choice of each item is the right one."""

    right_N: npt.NDArray[np.bool_]
    """By log-likelihood per byte."""
    right_sum_N: npt.NDArray[np.bool_]
    """By summed log-likelihood."""


@dataclass(frozen=True)
class _Row:
    tokens: list[int]
    prompt: int
    """Tokens of the prompt; what follows is scored."""


def multiple_choice(model: Any, tokenizer: Any, items: Sequence[Item], batch: int = 64) -> Choices:
    """Judge items that have choices. Raises `ValueError` for an item whose answer is not among its choices."""
    for item in items:
        if item.answer not in item.choices:
            raise ValueError(f"{item.task}: the answer {item.answer!r} is not among the choices; add it to them")
    rows = [_row(tokenizer, item.prompt, choice) for item in items for choice in item.choices]
    likelihoods = iter(log_likelihoods(model, rows, batch).tolist())
    right, right_sum = [], []
    for item in items:
        sums = np.array([next(likelihoods) for _ in item.choices])
        sizes = np.array([max(1, len(choice.encode())) for choice in item.choices])
        gold = item.choices.index(item.answer)
        right.append(int(np.argmax(sums / sizes)) == gold)
        right_sum.append(int(np.argmax(sums)) == gold)
    return Choices(np.array(right, dtype=np.bool_), np.array(right_sum, dtype=np.bool_))


def _row(tokenizer: Any, prompt: str, choice: str) -> _Row:
    before = encode(tokenizer, render_prompt(tokenizer, prompt))
    lead = "" if tokenizer.chat_template else " "
    return _Row(before + encode(tokenizer, lead + choice), len(before))


@torch.inference_mode()
def log_likelihoods(model: Any, rows: Sequence[_Row], batch: int) -> npt.NDArray[np.float64]:
    """(n,) log P(continuation | prompt) in nats, in the rows' order."""
    result = np.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].tokens))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        result[chosen] = _batch([rows[i] for i in chosen], model)
    return result


def _batch(rows: Sequence[_Row], model: Any) -> npt.NDArray[np.float64]:
    """Right padding is harmless under causal attention; only the continuations' positions go through the head."""
    width = max(len(row.tokens) for row in rows)
    tokens_BT = torch.zeros(len(rows), width, dtype=torch.long)
    scored_BT = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens_BT[i, : len(row.tokens)] = torch.tensor(row.tokens)
        scored_BT[i, row.prompt : len(row.tokens)] = True
    wanted = scored_BT[:, 1:]
    hidden_BTD = model.base_model(input_ids=tokens_BT.to(model.device), use_cache=False).last_hidden_state
    where = wanted.to(model.device)
    nats = token_nats(
        model.get_output_embeddings(), hidden_BTD[:, :-1][where], tokens_BT[:, 1:].to(model.device)[where]
    )
    sums_B = torch.zeros(len(rows), dtype=torch.float64)
    sums_B.index_add_(0, wanted.nonzero()[:, 0], nats.double().cpu())
    return -sums_B.numpy()
