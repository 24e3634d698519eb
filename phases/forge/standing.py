"""Where a model stands on validation data at the boundary of two stages: losses, and items solved, in a few passes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parametrize

from phases.dataset import Dataset
from phases.errors import DataError
from phases.forge.history import Standing
from phases.probe import Batch, answer_losses, encode_items
from phases.training.loss import row_nll

TASKS = ("reasoning", "memory")
ROWS = 8
"""Rows of one pass: items of similar length, so that little is padding."""


@dataclass(frozen=True)
class Validation:
    """Fixed validation inputs."""

    items: dict[str, list[Batch]]
    text_NT: torch.Tensor
    """(N, T+1) tokens."""

    @property
    def cost(self) -> float:
        """Passes over a token of one look."""
        rows = [batch.tokens_BT.numel() for batches in self.items.values() for batch in batches]
        return float(sum(rows) + self.text_NT[:, 1:].numel())

    @torch.no_grad()
    def measure(self, model: Any) -> Standing:
        """The model's standing; it may be training through a lattice, and goes on training afterwards."""
        training = model.training
        model.eval()
        with parametrize.cached():  # the weights are put on their lattice once, not once a pass
            answers = {name: answer_losses(model, batches) for name, batches in self.items.items()}
            text = text_loss(model, self.text_NT)
        model.train(training)
        return Standing(
            text=text,
            answers=float(np.mean([nats_N.mean() for nats_N, _ in answers.values()])),
            reasoning=float(answers["reasoning"][1].mean()),
            memory=float(answers["memory"][1].mean()),
        )


def open_validation(data: Dataset, items: int, blocks: int) -> Validation:
    """The first `items` validation items of each task and the first `blocks` text blocks.

    Raises `DataError` where the data has none.
    """
    chosen = {name: data.items("validation", name)[:items] for name in TASKS}
    text = np.asarray(data.blocks("validation", "text")[:blocks]).astype(np.int64)
    sizes = {**{name: len(found) for name, found in chosen.items()}, "text": len(text)}
    missing = [name for name, size in sizes.items() if size == 0]
    if missing:
        raise DataError(f"{data.path}: no validation data of {missing[0]}; prepare some: forge measures stages on it")
    return Validation(
        {n: encode_items(data.tokenizer, found, ROWS) for n, found in chosen.items()}, torch.from_numpy(text)
    )


def text_loss(model: Any, text_NT: torch.Tensor) -> float:
    """Mean nats a token."""
    head, total = model.get_output_embeddings().weight, 0.0
    for rows in torch.split(text_NT, ROWS):
        hidden = model.base_model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
        total += float(row_nll(hidden.flatten(0, 1), head, rows[:, 1:].flatten()).sum())
    return total / text_NT[:, 1:].numel()
