"""The models that thoughts are judged with, and their losses at the same positions of a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.config import EvaluationConfig
from evaluation.metric import Values
from evaluation.thought_units import Places, mean_where, text_places
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
    """Nats at the same positions of one split."""

    where: Places
    ours: ThoughtLosses
    pause: ThoughtLosses
    plain_NP: npt.NDArray[np.float64]
    parent_NP: npt.NDArray[np.float64]

    def rows(self) -> dict[str, Values]:
        """(N,) mean of every row, by what predicted it."""
        return self._means(self.where.counted_NP)

    def hard_rows(self) -> dict[str, Values]:
        """The same over the quarter of the positions that the *parent* found hardest, whoever is compared."""
        return self._means(self.where.counted_NP & (self.parent_NP >= np.quantile(self.parent_NP, HARD)))

    def _means(self, chosen_NP: npt.NDArray[np.bool_]) -> dict[str, Values]:
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


def measure_losses(family: Family, data: Dataset, split: Split, config: EvaluationConfig) -> Losses:
    """Everyone's nats at the same positions of a split's text."""
    where = text_places(data, split, config.thought_blocks, config.thought_positions, config.seed)
    return Losses(
        where,
        thought_losses(family.thinker, where, family.thinking),
        thought_losses(family.pause, where, family.thinking.model_copy(update={"pause": True})),
        plain_losses(family.plain, where),
        plain_losses(family.parent, where),
    )
