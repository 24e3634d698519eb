"""Rows of freshly made task items, each of the difficulty that the closed loop asks for, and how many were solved.

A row holds whole items of the tasks of one speciality, as many as fit. Which task and which level an item comes from
is drawn by the seed and the step; the items of a cell (task, level) come in their order, all of them once before one
comes again. How far each cell is used up is the only state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from phases.data.pack import ANSWER, PADDING, PROMPT, pack_items
from phases.dataset import Dataset
from phases.forge.config import Chaos
from phases.forge.difficulty import fresh_items, tasks_of
from phases.tasks.item import Item

_DRAWS = 3
"""The rows' stream of random numbers; `Mixture` has 1 and 2."""


@dataclass(frozen=True)
class FreshRows:
    """A batch of fresh items: what is trained on, and which item every answer token belongs to."""

    tokens_BT: torch.Tensor
    """(B, T+1) int64."""
    weight_BT: torch.Tensor
    """(B, T) float32: weight of predicting tokens[:, 1:]; each row sums to 1."""
    item_BT: torch.Tensor
    """(B, T) int64: the item whose answer token is predicted here, a running number over the batch; −1 elsewhere."""
    task_I: torch.Tensor
    """(I,) int64: the task of each item, an index into `FreshTasks.tasks`."""


@dataclass(frozen=True)
class _Encoded:
    tokens: npt.NDArray[Any]
    mask: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Task:
    speciality: str
    cells: tuple[tuple[_Encoded, ...], ...]
    """The items of every level; some may have none."""
    filled: npt.NDArray[np.int64]
    """Levels that have items."""


class FreshTasks:
    """Tokenised fresh items by task and level. A task without a single item that fits a row is left out."""

    def __init__(
        self,
        items: Mapping[str, Sequence[Sequence[Item]]],
        levels: Sequence[float],
        tokenizer: Any,
        block_tokens: int,
        prompt_weight: float,
    ) -> None:
        cells = {name: tuple(_encode(tokenizer, cell, block_tokens) for cell in own) for name, own in items.items()}
        found = {name: own for name, own in cells.items() if any(own)}
        self.tasks = tuple(found)
        """Their names, in the order of `FreshRows.task_I`."""
        self._tasks = [
            _Task(
                next(item.speciality for cell in items[name] for item in cell), own, np.flatnonzero(list(map(len, own)))
            )
            for name, own in found.items()
        ]
        self._levels = np.array(levels, dtype=np.float64)
        self._taken = np.zeros((len(found), len(levels)), dtype=np.int64)
        self._block, self._pad, self._prompt_weight = block_tokens, int(tokenizer.eos_token_id), prompt_weight

    @classmethod
    def of(cls, data: Dataset, settings: Chaos, seed: int, prompt_weight: float) -> Self:
        """Fresh items of the generators of `data`, at its loop's difficulties; none shares a group with a held-out one.

        Raises `ConfigError` for generators that are no longer known.
        """
        levels = np.linspace(0, settings.hardest, settings.levels).tolist()
        held_out = data.items("validation") + data.items("test")
        items = fresh_items(tasks_of(data), levels, settings.items, seed, held_out)
        return cls(items, levels, data.tokenizer, data.block_tokens, prompt_weight)

    @property
    def specialities(self) -> tuple[str, ...]:
        """Those that there are rows of: `reasoning`, `memory`, both or none."""
        return tuple(dict.fromkeys(task.speciality for task in self._tasks))

    def rows(
        self,
        count_by_speciality: Mapping[str, int],
        difficulty: Mapping[str, float],
        share: Mapping[str, float],
        step: int,
        seed: int,
    ) -> FreshRows:
        """The rows of `step`, those of each speciality together, in the order of `count_by_speciality`.

        `difficulty` and `share` are by task; shares count within a speciality. A difficulty between two levels draws
        from both in proportion. The items that it takes are used up: a step asks once. Every speciality with a count
        above 0 must be one of `specialities`.
        """
        rng = np.random.default_rng([seed, _DRAWS, step])
        packed: list[list[tuple[int, _Encoded]]] = []
        for speciality, count in count_by_speciality.items():
            packed += self._pack(speciality, count, difficulty, share, rng)
        return self._batch(packed)

    def state(self) -> dict[str, torch.Tensor]:
        """`taken`: (tasks, levels) int64, the items that each cell has given."""
        return {"taken": torch.from_numpy(self._taken.copy())}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continue from what `state` returned."""
        self._taken = state["taken"].numpy().copy()

    def _pack(
        self,
        speciality: str,
        count: int,
        difficulty: Mapping[str, float],
        share: Mapping[str, float],
        rng: np.random.Generator,
    ) -> list[list[tuple[int, _Encoded]]]:
        """(task, item) of each row. What no longer fits a row begins the next; after the last it is not taken."""
        own = [index for index, task in enumerate(self._tasks) if task.speciality == speciality]
        assert own or not count, f"no fresh tasks of speciality {speciality}"
        weight = np.array([share[self.tasks[index]] for index in own], dtype=np.float64)
        rows: list[list[tuple[int, _Encoded]]] = []
        room = 0
        while count:
            index = own[int(rng.choice(len(own), p=weight / weight.sum()))]
            task = self._tasks[index]
            levels = self._levels[task.filled]
            level = int(task.filled[nearby(levels, difficulty[self.tasks[index]], rng.random())])
            cell = task.cells[level]
            item = cell[self._taken[index, level] % len(cell)]
            if len(item.tokens) > room:
                if len(rows) == count:
                    break
                rows.append([])
                room = self._block + 1
            rows[-1].append((index, item))
            room -= len(item.tokens)
            self._taken[index, level] += 1
        return rows

    def _batch(self, rows: Sequence[Sequence[tuple[int, _Encoded]]]) -> FreshRows:
        shape = (len(rows), self._block + 1)
        tokens = np.full(shape, self._pad, dtype=np.int64)
        mask = np.full(shape, PADDING, dtype=np.uint8)
        number = np.full(shape, -1, dtype=np.int64)
        tasks: list[int] = []
        for row, items in enumerate(rows):
            start = 0
            for task, item in items:
                place = row, slice(start, start + len(item.tokens))
                tokens[place], mask[place] = item.tokens, item.mask
                number[place] = np.where(item.mask == ANSWER, len(tasks), -1)
                tasks.append(task)
                start += len(item.tokens)
        asked = mask[:, 1:]
        weight = np.where(asked == ANSWER, 1.0, np.where(asked == PROMPT, self._prompt_weight, 0.0)).astype(np.float32)
        weight /= weight.sum(1, keepdims=True)
        made = map(torch.from_numpy, (tokens, weight, number[:, 1:].copy(), np.array(tasks, dtype=np.int64)))
        return FreshRows(*made)


def nearby(levels: npt.NDArray[np.float64], difficulty: float, point: float) -> int:
    """Which of the ascending `levels` an item of this difficulty comes from, for a `point` drawn from [0, 1).

    Of the two around it the upper in proportion to how close it is; beyond the ends the end.
    """
    upper = int(np.searchsorted(levels, difficulty))
    if upper == 0 or upper == len(levels):
        return min(upper, len(levels) - 1)
    low, high = levels[upper - 1], levels[upper]
    return upper if point < (difficulty - low) / (high - low) else upper - 1


def solved_by_task(
    guess_BT: torch.Tensor, target_BT: torch.Tensor, item_BT: torch.Tensor, task_I: torch.Tensor, tasks: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """((K,) solved items, (K,) asked items) of each of `tasks` tasks, int64; solved: every answer token is guessed.

    All tensors on one device. Items without a token here (a micro-batch has some of the rows) are not asked, so the
    sums over the parts of a batch are those of the batch.
    """
    there = item_BT >= 0
    item_N, wrong_N = item_BT[there], guess_BT[there] != target_BT[there]
    asked_I = torch.bincount(item_N, minlength=len(task_I)) > 0
    failed_I = torch.bincount(item_N[wrong_N], minlength=len(task_I)) > 0
    right_K = torch.bincount(task_I[asked_I & ~failed_I], minlength=tasks)
    return right_K, torch.bincount(task_I[asked_I], minlength=tasks)


def _encode(tokenizer: Any, items: Sequence[Item], block: int) -> tuple[_Encoded, ...]:
    """Each item's tokens and mask, just as the data's own rows have them; without those that exceed a row."""
    packed = pack_items(tokenizer, items, block)
    there = packed.mask_NT != PADDING
    ends = np.cumsum(packed.counts)[:-1]
    tokens, masks = np.split(packed.tokens_NT[there], ends), np.split(packed.mask_NT[there], ends)
    return tuple(_Encoded(t, m) for t, m in zip(tokens, masks, strict=True) if len(t))
