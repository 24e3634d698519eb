"""Off the training distribution: what right answers to kinds of questions that nothing trained on cost each model."""

from collections.abc import Mapping
from typing import Any

from evaluation.config import EvaluationConfig
from evaluation.judgement import Cell, Table
from evaluation.metric import Values, standard_error
from evaluation.thought_units import answer_places
from evaluation.thoughts import plain_losses
from evaluation.zero_shot import unseen_items
from phases.dataset import Dataset

Losses = dict[str, Values]
"""(N,) mean nats a token of each item's answer, by kind of question."""


def unseen_losses(model: Any, tokenizer: Any, data: Dataset, config: EvaluationConfig) -> Losses:
    """Losses on the first tokens of the right answers to every kind of `config.zero_shot` that is not in the data."""
    losses = {}
    for kind, items in unseen_items(data, config).items():
        where = answer_places(tokenizer, items, config.thought_positions)
        losses[kind] = where.mean(plain_losses(model, where))
    return losses


def unseen_table(ours: str, parent: str, by_model: Mapping[str, Losses]) -> Table:
    """A row a kind: every model's nats a token, and by how much ours are above the parent's, paired."""
    rows: list[tuple[Cell, ...]] = []
    for kind, before in by_model[parent].items():
        cells: list[Cell] = [kind, len(before)]
        for values in (*(losses[kind] for losses in by_model.values()), by_model[ours][kind] - before):
            cells += [float(values.mean()), standard_error(values)]
        rows.append(tuple(cells))
    names = [*by_model, f"{ours} − {parent}"]
    columns = ("task", "items", *(column for name in names for column in (name, f"{name} ±")))
    return Table(title="Never trained on: nats a token of the right answer", columns=columns, rows=tuple(rows))
