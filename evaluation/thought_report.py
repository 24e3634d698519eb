"""Tables about thoughts: hard tokens, length, data never trained on, and thoughts that helped or hurt."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.config import EvaluationConfig
from evaluation.judgement import Cell, Table
from evaluation.metric import Values, standard_error
from evaluation.thought_units import Places, answer_places
from evaluation.thoughts import ThoughtLosses, thought_losses
from evaluation.zero_shot import unseen_items
from phases.dataset import Dataset
from phases.quiet_star.decoder import Thinking
from phases.quiet_star.thinker import Thinker
from phases.tasks.item import Item

SHOWN = 6
"""Examples of each kind."""
CONTEXT = 60
"""Characters of text before a position that are shown."""


def hard_table(splits: Mapping[str, tuple[Mapping[str, Values], Mapping[str, Values]]]) -> Table:
    """Nats a token over all and over the hard positions of each split, for everything that predicted them."""
    rows: list[tuple[Cell, ...]] = []
    for split, parts in splits.items():
        for label, values in zip(("all", "hard quarter"), parts, strict=True):
            cells: list[Cell] = [f"{split}, {label}", len(next(iter(values.values())))]
            for value in values.values():
                cells += [float(value.mean()), standard_error(value)]
            rows.append(tuple(cells))
    names = list(next(iter(splits.values()))[0])
    columns = ("positions", "rows", *(column for name in names for column in (name, f"{name} ±")))
    return Table(title="Nats a token with and without thoughts", columns=columns, rows=tuple(rows))


def length_table(thinker: Thinker, thinking: Thinking, where: Places, config: EvaluationConfig) -> Table:
    """What thoughts of other lengths than the trained one bring, on the same positions."""
    rows: list[tuple[Cell, ...]] = []
    for tokens in config.thought_lengths:
        found = thought_losses(thinker, where, thinking.model_copy(update={"tokens": tokens}))
        gained = where.mean(found.off_NP - found.on_NP)
        mark = " (trained)" if tokens == thinking.tokens else ""
        rows.append((f"{tokens}{mark}", len(gained), *_cells(where.mean(found.on_NP)), *_cells(gained)))
    columns = ("thought tokens", "rows", "nats on", "nats on ±", "gain over off", "gain over off ±")
    return Table(title="Gain by length of the thought", columns=columns, rows=tuple(rows))


def zero_shot_table(
    thinker: Thinker, thinking: Thinking, tokenizer: Any, data: Dataset, cloze: list[Item], config: EvaluationConfig
) -> Table:
    """Nats a token of right answers to questions of kinds that no training row had."""
    kinds = {**unseen_items(data, config), **({"cloze on held-out text": cloze} if cloze else {})}
    rows: list[tuple[Cell, ...]] = []
    for name, items in kinds.items():
        where = answer_places(tokenizer, items, config.thought_positions)
        found = thought_losses(thinker, where, thinking)
        off, on, shuffled = (where.mean(v) for v in (found.off_NP, found.on_NP, found.shuffled_NP))
        rows.append((name, len(off), *_cells(off), *_cells(on), *_cells(shuffled), *_cells(off - on)))
    names = ("off", "on", "shuffled", "gain")
    columns = ("task", "items", *(column for name in names for column in (name, f"{name} ±")))
    return Table(title="Never trained on: nats a token of the right answer", columns=columns, rows=tuple(rows))


def examples(where: Places, found: ThoughtLosses, tokenizer: Any) -> dict[str, Table]:
    """The thoughts that changed a prediction most, for the better and for the worse, and the median one."""
    gained_NP = np.where(where.counted_NP, found.off_NP - found.on_NP, 0.0)
    order = np.argsort(gained_NP, axis=None)
    middle = len(order) // 2
    chosen = {
        "thoughts_helped": ("Thoughts that helped most", order[::-1][:SHOWN]),
        "thoughts_hurt": ("Thoughts that hurt most", order[:SHOWN]),
        "thoughts_median": ("Thoughts about the median", order[middle : middle + SHOWN]),
    }
    return {
        name: Table(
            title=title,
            columns=("text before", "thought", "next token", "nats off", "nats on", "weight"),
            rows=tuple(_example(int(i), where, found, tokenizer) for i in indices),
        )
        for name, (title, indices) in chosen.items()
    }


def _example(index: int, where: Places, found: ThoughtLosses, tokenizer: Any) -> tuple[Cell, ...]:
    row, column = divmod(index, where.anchor_NP.shape[1])
    place = int(where.anchor_NP[row, column])
    tokens = where.tokens_NT[row]
    before = tokenizer.decode(tokens[max(0, place - 40) : place + 1])[-CONTEXT:]
    return (
        _visible(before),
        _visible(tokenizer.decode(found.tokens_NPn[row, column])),
        _visible(tokenizer.decode(tokens[place + 1 : place + 2])),
        float(found.off_NP[row, column]),
        float(found.on_NP[row, column]),
        float(found.mixing_NP[row, column]),
    )


def _visible(text: str) -> str:
    """One line in quotes: what a table cell can hold."""
    return repr(text)


def _cells(values: npt.NDArray[np.float64]) -> tuple[float, float | None]:
    return float(values.mean()), standard_error(values)
