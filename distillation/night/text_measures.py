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
