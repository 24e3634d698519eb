"""Where a model stands on validation data at the boundary of two stages: losses, and items solved, in a few passes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize

from phases.dataset import Dataset
from phases.errors import DataError
from phases.forge.history import Standing
from phases.probe import Batch, encode_items
from phases.training.loss import row_nll

TASKS = ("reasoning", "memory")
ROWS = 16
"""Text rows of one pass."""


@dataclass(frozen=True)
class Validation:
    """Fixed validation inputs."""

    items: dict[str, list[Batch]]
    text_NT: torch.Tensor
    """(N, T+1) tokens."""

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
            answers=float(np.mean([nats for nats, _ in answers.values()])),
            reasoning=answers["reasoning"][1],
            memory=answers["memory"][1],
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
    return Validation({n: encode_items(data.tokenizer, found) for n, found in chosen.items()}, torch.from_numpy(text))


def text_loss(model: Any, text_NT: torch.Tensor) -> float:
    """Mean nats a token."""
    head, total = model.get_output_embeddings().weight, 0.0
    for rows in torch.split(text_NT, ROWS):
        hidden = model.base_model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
        total += float(row_nll(hidden.flatten(0, 1), head, rows[:, 1:].flatten()).sum())
    return total / text_NT[:, 1:].numel()


def answer_losses(model: Any, batches: Sequence[Batch]) -> tuple[float, float]:
    """(mean nats a token of the answers, mean over items; share of items whose every answer token is the argmax)."""
    nats, right = [], []
    for batch in batches:
        hidden_BTD = model.base_model(input_ids=batch.tokens_BT, use_cache=False).last_hidden_state
        wanted, target = batch.answer_BT[:, 1:], batch.tokens_BT[:, 1:]
        logits_NV = model.get_output_embeddings()(hidden_BTD[:, :-1][wanted]).float()
        loss_BT = torch.zeros(wanted.shape)
        loss_BT[wanted] = F.cross_entropy(logits_NV, target[wanted], reduction="none")
        wrong_BT = torch.zeros_like(wanted)
        wrong_BT[wanted] = logits_NV.argmax(-1) != target[wanted]
        nats.append(loss_BT.sum(1) / wanted.sum(1))
        right.append(~wrong_BT.any(1))
    return float(torch.cat(nats).mean()), float(torch.cat(right).double().mean())
