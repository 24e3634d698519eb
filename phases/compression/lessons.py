"""What the compressed form is trained and measured on: the data's streams, and an agent's own conversations.

with open_lessons(parent, data, config) as lessons: ...
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from phases.adas.exploring import encode_domains
from phases.adas.trials import ITEMS, LEFT_OUT, open_course
from phases.agent.settings import SETTINGS
from phases.baking.rows import BakingRows, Encoded, open_rehearsal, pack_conversations
from phases.checkpoint import Checkpoint
from phases.compression.config import CompressionConfig
from phases.dataset import Dataset
from phases.training.batches import Mixture, RowSource

_MIXED = 41
"""Stream of random numbers."""


@dataclass(frozen=True)
class Lessons:
    """An agent's conversations in tokens; none for a model that is no agent."""

    train: tuple[Encoded, ...]
    held_out: Mapping[str, tuple[Encoded, ...]]
    """Of the validation split, by domain."""
    row_tokens: int
    """Of a row of them."""

    @property
    def in_turn(self) -> tuple[Encoded, ...]:
        """The held-out ones, one of each domain in turn."""
        return tuple(one for several in zip_longest(*self.held_out.values()) for one in several if one is not None)


def open_lessons(parent: Checkpoint, data: Dataset, config: CompressionConfig) -> Lessons:
    """Make them anew, always the same."""
    length = config.row_tokens or data.block_tokens
    if not (parent.path / SETTINGS).is_file():
        return Lessons((), {}, length)
    with open_course(parent, data, ("validation",), config.lessons) as course:
        train = encode_domains(parent, course.lessons)
        kinds = [name for name in course.trials["validation"] if name not in {*ITEMS, LEFT_OUT}]
        solved = {name: [trial.solved for trial in course.trials["validation"][name]] for name in kinds}
        held_out = {name: tuple(found) for name, found in encode_domains(parent, solved).items()}
    return Lessons(tuple(one for every in train.values() for one in every), held_out, length)


def training_rows(lessons: Lessons, data: Dataset, config: CompressionConfig) -> RowSource:
    """Rows of a step: conversations in a random order beside the data's streams."""
    mix, prompt_weight = config.mix.model_dump(), config.training.prompt_weight
    if not lessons.train or not config.conversations:
        return Mixture(data, mix, config.seed + _MIXED, prompt_weight)
    pad = int(data.tokenizer.eos_token_id)
    order = np.random.default_rng([config.seed, _MIXED]).permutation(len(lessons.train))
    packed = pack_conversations([lessons.train[i] for i in order], lessons.row_tokens, pad, "compression")
    rehearsal = open_rehearsal(data, mix, config.seed, prompt_weight)
    return BakingRows(packed, rehearsal, 1 - config.conversations, config.seed, pad)
