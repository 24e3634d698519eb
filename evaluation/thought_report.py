"""Tables about thoughts: hard tokens, length, data never trained on, and thoughts that helped or hurt."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.config import EvaluationConfig
from evaluation.judgement import Cell, Table
from evaluation.metric import standard_error
from evaluation.thought_family import Family, Losses, measure_losses
from evaluation.thought_units import Places, answer_places
from evaluation.thoughts import ThoughtLosses, thought_losses
from evaluation.zero_shot import unseen_items
from phases.dataset import Dataset
from phases.tasks.item import Item

SHOWN = 3
"""Examples of each sort and kind of row."""
CONTEXT = 60
"""Characters of text before a position that are shown."""


def hard_table(found: Mapping[str, Losses]) -> Table:
    """Nats a token over all and over the hard positions, by kind of row and by what predicted them."""
    rows: list[tuple[Cell, ...]] = []
    names: list[str] = []
    for label, losses in found.items():
        for part, values in (("all", losses.rows()), ("hard quarter", losses.hard_rows())):
            names = list(values)
            cells = [cell for value in values.values() for cell in _cells(value)]
            rows.append((f"{label}, {part}", len(values["on"]), *cells))
    columns = ("positions", "rows", *(column for name in names for column in (name, f"{name} ±")))
    return Table(title="Nats a token with and without thoughts", columns=columns, rows=tuple(rows))


def length_table(family: Family, where: Mapping[str, Places], config: EvaluationConfig) -> Table:
    """What thoughts of other lengths than the trained one bring over none, on every fourth row: they are costly."""
    where = {kind: places.every(4) for kind, places in where.items()}
    rows: list[tuple[Cell, ...]] = []
    for tokens in sorted({*config.thought_lengths, family.thinking.tokens}):
        cells: list[Cell] = [tokens, sum(len(places.anchor_NP) for places in where.values())]
        for places in where.values():
            found = thought_losses(family.thinker, places, family.thinking.model_copy(update={"tokens": tokens}))
            cells += _cells(places.mean(found.off_NP - found.on_NP))
        rows.append(tuple(cells))
    columns = ("thought tokens", "rows", *(column for name in where for column in (name, f"{name} ±")))
    title = f"Nats a token gained by length of the thought (trained: {family.thinking.tokens})"
    return Table(title=title, columns=columns, rows=tuple(rows))


def zero_shot_table(family: Family, data: Dataset, cloze: list[Item], config: EvaluationConfig) -> Table:
    """Nats a token of right answers to questions of kinds that no training row had."""
    kinds = {**unseen_items(data, config), **({"cloze on held-out text": cloze} if cloze else {})}
    rows: list[tuple[Cell, ...]] = []
    names: list[str] = []
    for name, items in kinds.items():
        where = answer_places(family.tokenizer, items, config.thought_positions)
        values = measure_losses(family, where).rows()
        values["off − on"] = values["off"] - values["on"]
        rows.append((name, len(items), *(cell for value in values.values() for cell in _cells(value))))
        names = list(values)
    columns = ("task", "items", *(column for name in names for column in (name, f"{name} ±")))
    return Table(title="Never trained on: nats a token of the right answer", columns=columns, rows=tuple(rows))


def examples(found: Mapping[str, Losses], tokenizer: Any) -> dict[str, Table]:
    """The thoughts of each kind of row that changed a prediction most, for the better and for the worse; the median."""
    chosen: dict[str, list[tuple[Cell, ...]]] = {"helped most": [], "hurt most": [], "are the median": []}
    for kind, losses in found.items():
        gained_NP = np.where(losses.where.counted_NP, losses.ours.off_NP - losses.ours.on_NP, np.nan)
        order = np.argsort(gained_NP, axis=None)[: int(losses.where.counted_NP.sum())]  # NaN comes last
        middle = len(order) // 2
        picked = (order[::-1][:SHOWN], order[:SHOWN], order[middle : middle + SHOWN])
        for rows, indices in zip(chosen.values(), picked, strict=True):
            rows += [(kind, *_example(int(i), losses.where, losses.ours, tokenizer)) for i in indices]
    columns = ("kind", "text before", "thought", "next token", "nats off", "nats on", "weight")
    return {
        f"thoughts_{name.split()[0]}": Table(title=f"Thoughts that {name}", columns=columns, rows=tuple(rows))
        for name, rows in chosen.items()
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
