"""Which rows a step of a stage trains on: the data's own, fresh tasks at the loop's difficulty, and dreams.

In a stage that is controlled, rows of tasks give way to fresh ones; in one that dreams, a share of all rows gives way
to dreams. What a step gets depends on the seed, the step and what is remembered (positions, buffer, loop).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from phases.dataset import Dataset
from phases.forge.config import ForgeStage, ForgeTrainingConfig
from phases.forge.controller import Loop
from phases.forge.difficulty import task_weights, tasks_of
from phases.forge.dreams import Dream
from phases.forge.fresh import FreshTasks
from phases.forge.replay import ReplayBuffer
from phases.training.batches import Mixture, Rows

ITEM, LABEL, DREAM = range(3)
"""Channels of the marks: the fresh item whose answer is to be predicted; on the last token of a dream the index of the
temperature that it was written at, and on that of a true text one more than there are; and 1 in rows of dreams."""
_OWN_ORDER = 1_000_000_007
_DREAMT_ROWS, _CUTS = 6, 7
"""Streams of random numbers; the mixture, the fresh tasks and the dreams have 1 to 5."""


class StageRows:
    """The rows of all stages, one after the other."""

    def __init__(self, data: Dataset, config: ForgeTrainingConfig) -> None:
        self.config = config
        self.enter(config.stages[0], 0)
        self.block, self.pad = data.block_tokens, int(data.tokenizer.eos_token_id)
        self.prompt_weight = config.training.prompt_weight
        self.mixture = open_mixture(data, config)
        acts = config.chaos.enabled and any(stage.control for stage in config.stages)
        self.fresh = FreshTasks.of(data, config.chaos, config.seed, self.prompt_weight) if acts else None
        self.tasks = () if self.fresh is None else self.fresh.tasks
        weights = task_weights(tasks_of(data))
        self.loop = Loop(config.chaos, {task: weights[task] for task in self.tasks})
        self.buffer = ReplayBuffer(config.dreams.capacity, config.dreams.novelty)
        self.task_I = torch.zeros(0, dtype=torch.int64)
        """The task of each fresh item of the last batch."""

    def enter(self, stage: ForgeStage, start: int, arrivals: Sequence[Dream] = ()) -> None:
        """Begin a stage whose first step is `start`: there the buffer is offered the dreams that arrive."""
        self.stage, self.start, self.arrivals = stage, start, arrivals

    @property
    def controlled(self) -> bool:
        """Whether this stage has fresh tasks."""
        return self.stage.control and bool(self.tasks)

    @property
    def dreaming(self) -> bool:
        """Whether there are dreams for this stage: to learn from, or to be recognised as one's own."""
        own = self.stage.self_model and self.config.self_model.enabled and self.config.self_model.temperature > 0
        return (self.stage.dreams or own) and len(self.buffer) > 0

    def rows(self, step: int, count: int) -> Rows:
        """The rows of a step, with marks where the stage needs any."""
        if step == self.start:  # not before: a state of this stage that is restored has had them
            self.buffer.offer(self.arrivals)
        rows = self.mixture.rows(step, count)
        if not self.controlled and not self.dreaming:
            return rows
        tokens_BT, weight_BT = rows.tokens_BT.clone(), rows.weight_BT.clone()
        marks_BTC = torch.full((*weight_BT.shape, 3), -1)
        marks_BTC[..., DREAM] = 0
        if self.controlled:
            self._put_fresh(step, count, tokens_BT, weight_BT, marks_BTC)
        if self.dreaming:
            self._put_dreams(step, count, tokens_BT, weight_BT, marks_BTC)
        return Rows(tokens_BT, weight_BT, marks_BTC)

    def _put_fresh(
        self, step: int, count: int, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, marks_BTC: torch.Tensor
    ) -> None:
        assert self.fresh is not None
        streams = np.array(self.mixture.names)[self.mixture.choices(step, count)]
        places = {name: np.flatnonzero(streams == name) for name in self.fresh.specialities}
        counts = {name: len(rows) for name, rows in places.items()}
        fresh = self.fresh.rows(counts, self.loop.difficulty, self.loop.shares, step, self.config.seed)
        at = torch.from_numpy(np.concatenate([*places.values()]))
        tokens_BT[at], weight_BT[at], marks_BTC[at, :, ITEM] = fresh.tokens_BT, fresh.weight_BT, fresh.item_BT
        self.task_I = fresh.task_I

    def _put_dreams(
        self, step: int, count: int, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, marks_BTC: torch.Tensor
    ) -> None:
        learning = self.stage.dreams and self.config.dreams.enabled
        number = max(1, round(self.config.dreams.share * count)) if learning else 1
        order = np.random.default_rng([self.config.seed, _DREAMT_ROWS, step]).permutation(count)
        at, true = torch.from_numpy(np.sort(order[:number])), torch.from_numpy(np.sort(order[number:]))
        dreamt, label_BT = self.buffer.rows(step, number, self.block, self.config.seed, self.prompt_weight, self.pad)
        # Outside stages that dream they are there to be recognised; nothing else is learnt from them.
        tokens_BT[at], weight_BT[at] = dreamt.tokens_BT, dreamt.weight_BT * learning
        marks_BTC[at, :, ITEM], marks_BTC[at, :, LABEL], marks_BTC[at, :, DREAM] = -1, label_BT, 1
        marks_BTC[true, :, LABEL] = self._true_ends(tokens_BT[true], step)

    def _true_ends(self, tokens_BT: torch.Tensor, step: int) -> torch.Tensor:
        """(B, T) labels of true rows: where a text or an answer ends, and at one place in its middle.

        Dreams of text are cut off after some tokens; were all true texts read to their ends, that alone would tell.
        """
        inputs_BT = tokens_BT[:, :-1]
        ends_BT = (inputs_BT == self.pad) & (tokens_BT[:, 1:] != self.pad)
        rng = np.random.default_rng([self.config.seed, _CUTS, step])
        ends_BT[torch.arange(len(ends_BT)), torch.from_numpy(rng.integers(ends_BT.shape[1], size=len(ends_BT)))] = True
        return torch.where(ends_BT, len(self.config.dreams.temperatures), -1)

    def memory(self) -> dict[str, torch.Tensor]:
        """Positions in the fresh tasks, the loop and the buffer."""
        parts = {"loop": self.loop.state(), "dreams": self.buffer.state()}
        parts |= {"fresh": self.fresh.state()} if self.fresh is not None else {}
        return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}

    def remember(self, memory: Mapping[str, torch.Tensor]) -> None:
        """Take up what `memory` gave."""
        self.loop.load(_part(memory, "loop"))
        self.buffer.load(_part(memory, "dreams"))
        if self.fresh is not None:
            self.fresh.load(_part(memory, "fresh"))


def open_mixture(data: Dataset, config: ForgeTrainingConfig) -> Mixture:
    """The data's own rows, in an order of their own.

    Earlier phases draw rows in the order of the run's seed, from its start: the same order would show again what they
    have trained on, while most rows have not been seen at all.
    """
    return Mixture(data, config.mix.model_dump(), config.seed + _OWN_ORDER, config.training.prompt_weight)


def _part(memory: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in memory.items() if key.startswith(f"{name}.")}
