"""What a model on this machine pays for text: whole blocks, and continuations of prompts."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from distillation.record import Record
from distillation.training.held_out import HeldOut
from evaluation.language import block_losses
from phases.checkpoint import Checkpoint
from phases.decoding import encode


def block_nats(
    checkpoint: Checkpoint, text_NT: torch.Tensor, bytes_N: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(N,) nats of each block."""
    return block_losses(checkpoint.model(), text_NT, bytes_N).nats_N


def expected_probability(checkpoint: Checkpoint, records: Sequence[Record]) -> npt.NDArray[np.float64]:
    """(N,) geometric mean of the probabilities of each expected answer's tokens, 0 to 1."""
    nats_N = HeldOut(records, checkpoint.tokenizer()).measure(checkpoint.model()).nats_N
    return np.asarray(np.exp(-nats_N))


def likelihoods(checkpoint: Checkpoint) -> Callable[[Sequence[tuple[str, str]]], list[float]]:
    """For (prompt, continuation) pairs the mean natural log-likelihood a token of each continuation."""
    model, tokenizer = checkpoint.model(), checkpoint.tokenizer()

    def likelihood(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [_mean(model, encode(tokenizer, prompt), encode(tokenizer, end)) for prompt, end in pairs]

    return likelihood


@torch.inference_mode()
def _mean(model: Any, prompt: list[int], end: list[int]) -> float:
    tokens_1T = torch.tensor([prompt + end])
    logits_TV = model(input_ids=tokens_1T).logits[0, len(prompt) - 1 : -1].double()
    nll = torch.nn.functional.cross_entropy(logits_TV, tokens_1T[0, len(prompt) :])
    return -float(nll)
