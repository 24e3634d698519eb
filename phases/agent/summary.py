"""A summary made of sentences that were said: LexRank (Erkan & Radev 2004, JAIR 22), the continuous form.

    sentences = split_sentences(text)
    similarity = cosines(sentences)                        # (N, N)
    order = np.argsort(-centrality(similarity))            # most central first

A sentence is central when many central sentences are like it: the stationary distribution of a walk that goes from a
sentence to a similar one, and with a chance of 0.15 to any. Nothing is invented, so a small model cannot be misled by
its own summary. N sentences cost N² numbers and one linear system: 10 ms at 400.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from phases.agent.wording import fact_key, words

Matrix = NDArray[np.float64]
JUMP = 0.15
"""Chance to go on at any sentence; the paper has 0.1 to 0.2."""
ALIKE = 0.7
"""A sentence this similar to one that was chosen says nothing new. Central sentences are often alike."""
_END = re.compile(r"(?<=[.!?…])\s+|\n+")


def split_sentences(text: str) -> list[str]:
    """Sentences and lines, each on one line, empty ones left out."""
    return [flat for part in _END.split(text) if (flat := " ".join(part.split()))]


def distinct(sentences: Iterable[str]) -> list[str]:
    """The last of equal sentences (but for case and spaces), in their order."""
    kept = list(sentences)
    last = {fact_key(sentence): index for index, sentence in enumerate(kept)}
    return [kept[index] for index in sorted(last.values())]


def cosines(sentences: Sequence[str]) -> Matrix:
    """(N, N) cosines of the sentences' tf-idf vectors; idf = log(N / sentences with the word).

    A sentence whose words are in all of them has no direction: it is like itself alone.
    """
    counts = [Counter(words(sentence)) for sentence in sentences]
    holders = Counter(word for count in counts for word in count)
    column = {word: index for index, word in enumerate(holders)}
    vectors_NV = np.zeros((len(sentences), len(column)))
    for row, count in enumerate(counts):
        for word, times in count.items():
            vectors_NV[row, column[word]] = times * math.log(len(sentences) / holders[word])
    lengths = np.linalg.norm(vectors_NV, axis=1, keepdims=True)
    unit_NV = np.divide(vectors_NV, lengths, out=np.zeros_like(vectors_NV), where=lengths > 0)
    similarity: Matrix = unit_NV @ unit_NV.T
    np.fill_diagonal(similarity, 1.0)
    return similarity


def centrality(similarity: Matrix, jump: float = JUMP) -> Matrix:
    """(N,) shares of a walk's time, which sum to 1: p = jump/N + (1 − jump) Bᵀ p, with the rows of B summing to 1.

    Solved as a linear system rather than by iteration: exact, and the same in every run. `jump` must be above 0.
    """
    count = len(similarity)
    walk = similarity / similarity.sum(axis=1, keepdims=True)
    found: Matrix = np.linalg.solve(np.eye(count) - (1 - jump) * walk.T, np.full(count, jump / count))
    return found


def by_centrality(sentences: Sequence[str]) -> list[int]:
    """Numbers of the sentences worth saying, most central first; of equal ones the later, of near copies one."""
    if not sentences:
        return []
    similarity = cosines(sentences)
    central = np.round(centrality(similarity), 12)  # what differs by rounding alone is equal on every machine
    order = sorted(range(len(sentences)), key=lambda index: (-central[index], -index))
    chosen: list[int] = []
    for index in order:
        if not (similarity[index, chosen] > ALIKE).any():
            chosen.append(index)
    return chosen
