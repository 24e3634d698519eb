"""The positions on which thoughts are judged, drawn once for all models: running text and answers of held-out tasks.

A unit is a row (a text block, or one question with its answer). Positions of a row are those whose next token is to be
predicted: P of a text block at random, the first tokens of an answer in their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from evaluation.language import text_blocks
from phases.dataset import Dataset, Split
from phases.decoding import encode
from phases.tasks.item import Item, render_completion, render_prompt


@dataclass(frozen=True)
class Places:
    """N rows and P positions of each."""

    tokens_NT: torch.Tensor
    """(N, T + 1) int64; padded on the right, which causal attention does not see."""
    anchor_NP: torch.Tensor
    """(N, P) positions whose next token is predicted."""
    counted_NP: npt.NDArray[np.bool_]
    """(N, P) false where a row has fewer positions and repeats its last."""

    def every(self, step: int) -> "Places":
        """Every `step`-th row."""
        return Places(self.tokens_NT[::step], self.anchor_NP[::step], self.counted_NP[::step])

    def mean(self, values_NP: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(N,) mean of each row over its positions."""
        return mean_where(values_NP, self.counted_NP)


def mean_where(values_NP: npt.NDArray[np.float64], chosen_NP: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """(N',) mean of each row over its chosen positions; rows without any are left out."""
    counts = chosen_NP.sum(1)
    sums = np.where(chosen_NP, values_NP, 0.0).sum(1)
    return np.asarray(sums[counts > 0] / counts[counts > 0], dtype=np.float64)


def text_places(data: Dataset, split: Split, rows: int | None, count: int, seed: int) -> Places:
    """`count` random positions of each of `rows` text blocks that are spread over the split."""
    tokens_NT, _ = text_blocks(data, split, rows)
    generator = torch.Generator().manual_seed(seed)
    chance_NT = torch.ones(len(tokens_NT), tokens_NT.shape[1] - 1)
    anchor_NP = torch.multinomial(chance_NT, min(count, chance_NT.shape[1]), generator=generator).sort(1).values
    return Places(tokens_NT, anchor_NP, np.ones(anchor_NP.shape, dtype=np.bool_))


def answer_places(tokenizer: Any, items: Sequence[Item], count: int) -> Places:
    """The first `count` tokens of every item's completion. Raises `ValueError` when there are no items."""
    if not items:
        raise ValueError("no items to think about; give at least one")
    rows = []
    for item in items:
        prompt = encode(tokenizer, render_prompt(tokenizer, item.prompt))
        rows.append((prompt, encode(tokenizer, render_completion(tokenizer, item))))
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    places = min(count, max(len(answer) for _, answer in rows))
    tokens_NT = torch.zeros(len(rows), longest, dtype=torch.long)
    anchor_NP = torch.zeros(len(rows), places, dtype=torch.long)
    counted_NP = np.zeros((len(rows), places), dtype=np.bool_)
    for i, (prompt, answer) in enumerate(rows):
        tokens_NT[i, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        own = torch.arange(places).clamp(max=len(answer) - 1)
        anchor_NP[i] = len(prompt) - 1 + own
        counted_NP[i] = np.arange(places) < len(answer)
    return Places(tokens_NT, anchor_NP, counted_NP)
