"""What a model on this machine pays for text: whole blocks, and the answers that are expected of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from distillation.record import Record
from distillation.teachers.local import LocalTeacher
from distillation.training.held_out import HeldOut
from distillation.validation.gate import Criterion
from evaluation.language import block_losses, text_blocks
from evaluation.metric import Values
from phases.dataset import Dataset

TEXT = "text"


@dataclass(frozen=True)
class ReadText:
    """Held-out text as several models read it."""

    nats: dict[str, Values]
    """By model, nats of each block."""
    bytes_N: npt.NDArray[np.float64]
    tokens: int
    """Of a block, that are predicted."""
    vocabulary: int

    @property
    def blocks(self) -> int:
        """N."""
        return len(self.bytes_N)

    @property
    def bits_per_byte(self) -> dict[str, float]:
        """By model."""
        return {name: float(nats.sum() / np.log(2) / self.bytes_N.sum()) for name, nats in self.nats.items()}

    def criterion(self, student: str, teacher: str, baseline: str) -> Criterion:
        """Nats of a block as costs: 0 for a probability of one, 1 for that of a uniform guess and all below it."""
        ours, theirs, plain = (
            1 - log_score(self.nats[name] / self.tokens, self.vocabulary) for name in (student, teacher, baseline)
        )
        return Criterion(TEXT, ours, theirs, plain, kind="graded", costs=True)


def read_text(models: Mapping[str, LocalTeacher], data: Dataset, blocks: int | None) -> ReadText:
    """`blocks` of the test split's text; None: all."""
    text_NT, bytes_N = text_blocks(data, "test", blocks)
    nats = {name: block_nats(model, text_NT, bytes_N) for name, model in models.items()}
    vocabulary = next(int(model.model.config.vocab_size) for model in models.values())
    return ReadText(nats, bytes_N, text_NT.shape[1] - 1, vocabulary)


def block_nats(who: LocalTeacher, text_NT: torch.Tensor, bytes_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N,) nats of each block."""
    return block_losses(who.model, text_NT, bytes_N).nats_N


def expected_score(who: LocalTeacher, records: Sequence[Record]) -> npt.NDArray[np.float64]:
    """(N,) `log_score` of each expected answer, mean over its tokens."""
    nats_N = HeldOut(records, who.tokenizer).measure(who.model).nats_N
    return log_score(nats_N, int(who.model.config.vocab_size))


def log_score(nats_N: npt.NDArray[np.float64], vocabulary: int) -> npt.NDArray[np.float64]:
    """(N,) 1 for a probability of one, 0 from that of a uniform guess down.

    The probability itself is no proper score: who is sure of everything gains more by it than it costs (Gneiting and
    Raftery 2007, section 3), and what is fine-tuned for many epochs is sure of everything.
    """
    worst = float(np.log(vocabulary))
    return np.asarray(1 - np.minimum(nats_N, worst) / worst)
