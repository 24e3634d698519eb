"""Floors: what predictors that understand nothing score on the same held-out units.

Uniform (ln V a token), unigram and bigram language models fitted on the training blocks; chance for multiple choice;
the most frequent training answer for exact match. The bigram is interpolated by absolute discounting (Ney, Essen &
Kneser 1994): P(w|v) = max(c(v,w) − d, 0)/c(v) + d·N₁₊(v,·)/c(v) · P(w), with d = n₁/(n₁ + 2n₂) from the counts of
counts, over an add-½ unigram P(w). Counts are sparse (one sorted int64 key a pair seen), so V = 32,000 is no matter.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.ratio import BlockLosses
from phases.tasks.item import Item

UNIGRAM_PRIOR = 0.5
"""Added to every unigram count (Krichevsky & Trofimov 1981)."""


@dataclass(frozen=True)
class BigramModel:
    """Fitted counts; every probability is positive and each context's sum to one."""

    unigram_V: npt.NDArray[np.float64]
    keys_K: npt.NDArray[np.int64]
    """Pairs seen, v · V + w, sorted."""
    counts_K: npt.NDArray[np.float64]
    context_V: npt.NDArray[np.float64]
    """c(v): times that v was followed by anything."""
    kinds_V: npt.NDArray[np.float64]
    """N₁₊(v, ·): distinct tokens that followed v."""
    discount: float

    def probabilities(self, v_N: npt.NDArray[np.int64], w_N: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(N,) P(w | v); an unseen context falls back to the unigram."""
        key_N = v_N * len(self.unigram_V) + w_N
        place_N = np.minimum(np.searchsorted(self.keys_K, key_N), len(self.keys_K) - 1)
        count_N = np.where(self.keys_K[place_N] == key_N, self.counts_K[place_N], 0.0)
        context_N = self.context_V[v_N]
        total_N = np.maximum(context_N, 1.0)
        own_N = np.maximum(count_N - self.discount, 0.0) / total_N
        left_N = np.where(context_N > 0, self.discount * self.kinds_V[v_N] / total_N, 1.0)
        return np.asarray(own_N + left_N * self.unigram_V[w_N], dtype=np.float64)


def fit_bigram(blocks_NT: npt.NDArray[Any], vocabulary: int) -> BigramModel:
    """Count the training blocks, (N, T+1) token ids; the first token of a row is context only."""
    v_N, w_N = _pairs(blocks_NT)
    keys_K, counts_K = np.unique(v_N * vocabulary + w_N, return_counts=True)
    unigram_V = np.bincount(w_N, minlength=vocabulary) + UNIGRAM_PRIOR
    context_K = keys_K // vocabulary
    return BigramModel(
        unigram_V=unigram_V / unigram_V.sum(),
        keys_K=keys_K,
        counts_K=counts_K.astype(np.float64),
        context_V=np.bincount(context_K, weights=counts_K, minlength=vocabulary).astype(np.float64),
        kinds_V=np.bincount(context_K, minlength=vocabulary).astype(np.float64),
        discount=_discount(counts_K),
    )


def _discount(counts_K: npt.NDArray[np.int64]) -> float:
    """d = n₁/(n₁ + 2n₂), kept inside (0, 1): counts without singletons would leave unseen pairs no probability."""
    once, twice = int((counts_K == 1).sum()), int((counts_K == 2).sum())
    return min(0.95, max(0.05, once / (once + 2 * twice))) if once else 0.05


def _pairs(blocks_NT: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    blocks = np.asarray(blocks_NT).astype(np.int64)
    return blocks[:, :-1].ravel(), blocks[:, 1:].ravel()


def floor_losses(
    model: BigramModel, blocks_NT: npt.NDArray[Any], bytes_N: npt.NDArray[np.float64]
) -> dict[str, BlockLosses]:
    """Losses of `uniform`, `unigram` and `bigram` on held-out blocks."""
    (rows, width), tokens = np.shape(blocks_NT), np.shape(blocks_NT)[1] - 1
    v_N, w_N = _pairs(blocks_NT)
    nats = {
        "uniform": np.full((rows, tokens), math.log(len(model.unigram_V))),
        "unigram": -np.log(model.unigram_V[w_N]),
        "bigram": -np.log(model.probabilities(v_N, w_N)),
    }
    return {name: BlockLosses(value.reshape(rows, width - 1).sum(1), bytes_N, tokens) for name, value in nats.items()}


def chance(items: Sequence[Item]) -> npt.NDArray[np.float64]:
    """(n,) chance of guessing each multiple-choice item: one over its choices."""
    return np.array([1 / max(1, len(item.choices)) for item in items])


def majority_right(train: Sequence[Item], items: Sequence[Item]) -> npt.NDArray[np.bool_]:
    """(n,) whether the most frequent training answer of the item's own task is the item's answer."""
    by_task: dict[str, Counter[str]] = {}
    for item in train:
        by_task.setdefault(item.task, Counter())[item.answer] += 1
    best = {task: max(counts, key=lambda answer: (counts[answer], answer)) for task, counts in by_task.items()}
    return np.array([best.get(item.task) == item.answer for item in items], dtype=np.bool_)


def copy_chance(items: Sequence[Item]) -> npt.NDArray[np.float64]:
    """(n,) chance of solving a memory item by copying a random stored value, without looking at the key.

    A model that has only learnt the form of recall scores this: one over the pairs, more where values repeat.
    """
    return np.array([_share_of_stored(item) for item in items], dtype=np.float64)


def _share_of_stored(item: Item) -> float:
    stored = re.findall(r"\w=(\d+)|code of \w+ is (\d+)", item.prompt)
    values = [pair or code for pair, code in stored]
    wanted = item.answer.rsplit("=", 1)[-1]
    return values.count(wanted) / len(values) if values else 0.0
