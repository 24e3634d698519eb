"""Writing as a design wants it: how deep the model is read, what is held back, searched for, drawn, and forbidden.

    texts = write(model, prompts, [96] * len(prompts), stop, design.decoding, constraint=constraint, seed=[0], batch=64)

What the model predicts (of its early exit, or less an early layer) is penalised for what was written; then the token is
the likeliest or is drawn, and gives way to the likeliest that fits where it does not fit. Everything may be combined;
of what excludes each other the first holds:

    beams          more than one: the likeliest text; where there is a temperature, with drawn continuations
    temperature    above 0, or `draw`: tokens are drawn from the warped distribution
    contrastive    contrastive search, of the `top_k` likeliest
    greedy         else; what is about drawing (top-k, top-p …) has no effect

A thinking model cannot be read early (`phases.agent.depth`).
"""

from collections.abc import Sequence
from typing import Any

import torch

from phases.agent.beams import BeamSearch
from phases.agent.constraint import Constraint, allowed, keep
from phases.agent.contrastive import ContrastiveSearch
from phases.agent.depth import Reader
from phases.agent.design import Decoding
from phases.agent.penalties import penalised
from phases.agent.warping import warp
from phases.decoding import Choice, Rows, Sampler, Text, batches, decode_steps, likeliest

__all__ = ["Text", "first_tokens", "write"]


def write(
    model: Any,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stop: set[int],
    decoding: Decoding,
    *,
    constraint: Constraint | None,
    seed: Sequence[int],
    batch: int,
    draw: float | None = None,
) -> list[Text]:
    """The text after each prompt, of at most its limit of tokens, the stop token included.

    `draw` is the temperature where the design has none. What is drawn for a prompt follows from the seed and its index
    alone. At most `batch` rows are read at a time. Raises `ValueError` for an empty prompt.
    """
    reader, temperature = Reader(model, decoding), decoding.temperature or draw or 0.0
    if decoding.beams > 1:
        return BeamSearch(reader, stop, decoding, constraint, temperature, seed)(prompts, limits, batch)
    if decoding.contrastive is not None and not temperature:
        return ContrastiveSearch(reader, stop, decoding, constraint)(prompts, limits, batch)
    choose: Choice = likeliest
    if temperature:
        choose = Sampler([temperature] * len(prompts), seed, warp(decoding))
    writing = _Writing(reader, decoding, constraint, choose, len(prompts))
    decode_steps(reader.model, prompts, limits, stop, writing, batch)
    return writing.texts


class _Writing:
    """Token after token; a step of `decode_steps`."""

    def __init__(
        self, reader: Reader, decoding: Decoding, constraint: Constraint | None, choose: Choice, prompts: int
    ) -> None:
        self.reader, self.decoding, self.constraint, self.choose = reader, decoding, constraint, choose
        self.texts = [Text([], []) for _ in range(prompts)]
        self.written = [text.tokens for text in self.texts]

    def __call__(self, rows: Rows, index: Sequence[int]) -> torch.Tensor:
        """(B,) the next tokens."""
        logits_BV = rows.logits()
        written = [self.written[i] for i in index]
        score_BV = penalised(self.reader.score(logits_BV, written), written, self.decoding)
        next_B = self.choose(score_BV, index)
        if self.constraint is not None:
            keep(self.constraint, next_B, index, self.written, score_BV, logits_BV)
        plain_BV = logits_BV.float()
        logprob_B = plain_BV.gather(1, next_B[:, None])[:, 0] - plain_BV.logsumexp(-1)
        for i, token, logprob in zip(index, next_B.tolist(), logprob_B.tolist(), strict=True):
            self.texts[i].tokens.append(token)
            self.texts[i].logprobs.append(logprob)
        return next_B


@torch.inference_mode()
def first_tokens(
    model: Any, prompts: Sequence[Sequence[int]], count: int, constraint: Constraint | None, batch: int
) -> list[list[int]]:
    """The `count` likeliest tokens that fit as the first one of each prompt, the likeliest first.

    Fewer where fewer of the 64 likeliest fit. To go on after one of them, write with the constraint `Begun`.
    """
    found: list[list[int]] = [[] for _ in prompts]
    for chosen in batches(prompts, [1] * len(prompts), batch):
        logits_BV = Rows(model, [prompts[i] for i in chosen]).logits()
        for i, logits_V in zip(chosen, logits_BV, strict=True):
            found[i] = allowed(constraint, i, [], count, logits_V)
    return found
