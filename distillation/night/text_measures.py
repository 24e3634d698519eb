"""What a model on this machine pays for text: whole blocks, and the answers that are expected of it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from distillation.record import Record
from distillation.teachers.local import LocalTeacher
from distillation.training.held_out import HeldOut
from evaluation.language import block_losses


def block_nats(who: LocalTeacher, text_NT: torch.Tensor, bytes_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N,) nats of each block."""
    return block_losses(who.model, text_NT, bytes_N).nats_N


def expected_probability(who: LocalTeacher, records: Sequence[Record]) -> npt.NDArray[np.float64]:
    """(N,) geometric mean of the probabilities of each expected answer's tokens, 0 to 1."""
    return np.asarray(np.exp(-HeldOut(records, who.tokenizer).measure(who.model).nats_N))
