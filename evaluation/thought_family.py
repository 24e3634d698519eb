"""The models that thoughts are judged with, and their losses at the same positions of a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.config import EvaluationConfig
from evaluation.language import spread
from evaluation.metric import Values
from evaluation.thought_units import Places, answer_places, mean_where, text_places
from evaluation.thoughts import ThoughtLosses, plain_losses, thought_losses
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset, Split
from phases.errors import CheckpointError
from phases.quiet_star.decoder import Thinking
from phases.quiet_star.run import PAUSE, PLAIN
from phases.quiet_star.storage import load_thinker
from phases.quiet_star.thinker import Thinker

HARD = 0.75
"""Quantile of the parent's loss from which a position is hard."""
Rows = dict[str, Values]
"""(N,) mean nats of every row by what predicted it."""


@dataclass(frozen=True)
class Family:
    """The models that are compared, in evaluation mode."""

    thinker: Thinker
    thinking: Thinking
    pause: Thinker
    plain: Any
    parent: Any
    tokenizer: Any


@dataclass(frozen=True)
class Losses:
    """Nats at the same positions of one kind of rows."""

    where: Places
    ours: ThoughtLosses
    pause: ThoughtLosses
    plain_NP: npt.NDArray[np.float64]
    parent_NP: npt.NDArray[np.float64]

    @property
    def not_finite(self) -> int:
        """Rows in which thinking, or a control, gave a NaN or infinite loss."""
        every = (self.ours.off_NP, self.ours.on_NP, self.ours.shuffled_NP, self.pause.on_NP, self.plain_NP)
        return int((~np.isfinite(np.stack(every))).any((0, 2)).sum())

    def rows(self) -> Rows:
        """Over all positions."""
        return self._means(self.where.counted_NP)

    def hard_rows(self) -> Rows:
        """Over the quarter of the positions that the parent found hardest, whoever is compared."""
        counted = self.where.counted_NP
        return self._means(counted & (self.parent_NP >= np.quantile(self.parent_NP[counted], HARD)))

    def _means(self, chosen_NP: npt.NDArray[np.bool_]) -> Rows:
        by_name = {
            "parent": self.parent_NP,
            "plain control": self.plain_NP,
            "pause control": self.pause.on_NP,
            "off": self.ours.off_NP,
            "on": self.ours.on_NP,
            "shuffled": self.ours.shuffled_NP,
        }
        return {name: mean_where(values, chosen_NP) for name, values in by_name.items()}


def open_family(checkpoint: Checkpoint, parents: Sequence[Checkpoint]) -> Family:
    """Open a checkpoint, its controls and its parent. Raises `CheckpointError` when one is missing."""
    siblings = checkpoint.siblings
    missing = [name for name in (PAUSE, PLAIN) if name not in siblings]
    if missing or len(parents) != 1:
        what = f"no sibling {', '.join(missing)}" if missing else f"{len(parents)} parents instead of one"
        raise CheckpointError(f"{checkpoint.path}: {what}; give a whole checkpoint of the quiet_star phase, its parent")
    thinker, trained = load_thinker(checkpoint.path)
    pause, _ = load_thinker(siblings[PAUSE].path)
    thinking = Thinking(tokens=trained.tokens, temperature=trained.temperature)
    return Family(thinker, thinking, pause, siblings[PLAIN].model(), parents[0].model(), checkpoint.tokenizer())


def thinking_places(data: Dataset, tokenizer: Any, split: Split, config: EvaluationConfig) -> dict[str, Places]:
    """Where thoughts are judged: positions of running text, and the answers of both kinds of tasks."""
    places = {"text": text_places(data, split, config.thought_rows, config.thought_positions, config.seed)}
    for name in ("reasoning", "memory"):
        every = data.items(split, name)
        items = [every[i] for i in spread(len(every), config.thought_rows)]
        if items:
            places[name] = answer_places(tokenizer, items, config.thought_positions)
    return places


def measure_losses(family: Family, where: Places) -> Losses:
    """Everyone's nats at the same positions."""
    return Losses(
        where,
        thought_losses(family.thinker, where, family.thinking),
        thought_losses(family.pause, where, family.thinking.model_copy(update={"pause": True})),
        plain_losses(family.plain, where),
        plain_losses(family.parent, where),
    )
