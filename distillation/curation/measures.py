"""Figures of a data set: how varied it is, and how many tokens it has.

diversity(records, seed=0)
tokens = count(records, tokenizer_length)
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from distillation.curation.shingles import Shingles, tokens
from distillation.record import Record

SAMPLE = 500


@dataclass(frozen=True)
class Diversity:
    """How varied questions are."""

    distinct: dict[str, float]
    """Distinct n-grams as a share of all (Li et al., arXiv 1510.03055): `1-grams`, `2-grams`, `3-grams`."""
    group_entropy_bits: float
    """Of the groups' shares; log2 of the number of groups when all are equally large."""
    groups: int
    nearest: float | None
    """Mean Jaccard similarity of a sampled question to its nearest neighbour in the sample; None below two."""
    nearest_stderr: float | None
    sample: int


def diversity(records: Sequence[Record], seed: int) -> Diversity:
    """Figures of the questions; nearest neighbours within a sample, which the seed chooses."""
    prompts = [record.prompt for record in records]
    words = [tokens(prompt) for prompt in prompts]
    shares = np.array(list(Counter(r.group for r in records).values()), dtype=np.float64) / max(1, len(records))
    chosen = sorted(prompts, key=lambda text: hashlib.sha256(f"{seed}\0{text}".encode()).digest())[:SAMPLE]
    nearest = _nearest(chosen)
    return Diversity(
        distinct={f"{n}-grams": _distinct(words, n) for n in (1, 2, 3)},
        group_entropy_bits=float(-(shares * np.log2(shares)).sum()) + 0.0,
        groups=len(shares),
        nearest=float(nearest.mean()) if len(nearest) else None,
        nearest_stderr=float(nearest.std(ddof=1) / math.sqrt(len(nearest))) if len(nearest) else None,
        sample=len(chosen),
    )


def _distinct(words: Sequence[Sequence[str]], n: int) -> float:
    runs = [tuple(text[i : i + n]) for text in words for i in range(len(text) - n + 1)]
    return len(set(runs)) / len(runs) if runs else 0.0


def _nearest(texts: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(texts,) the similarity of each to its nearest neighbour."""
    if len(texts) < 2:
        return np.zeros(0)
    first, second = np.triu_indices(len(texts), 1)
    similarity = np.zeros((len(texts), len(texts)))
    similarity[first, second] = Shingles.of(texts, 1).jaccard(first, second)
    best: np.ndarray[tuple[int], np.dtype[np.float64]] = np.maximum(similarity, similarity.T).max(axis=1)
    return best


@dataclass(frozen=True)
class Tokens:
    """How much text there is."""

    prompt: int
    completion: int
    """Of the records that are answered."""
    records: int
    answered: int


def count(records: Sequence[Record], count_tokens: Callable[[str], int]) -> Tokens:
    """Tokens of questions (all turns) and of answers, without what a chat template adds."""
    answered = [record for record in records if record.completion]
    return Tokens(
        prompt=sum(count_tokens(message.content) for record in records for message in record.messages),
        completion=sum(count_tokens(record.completion) for record in answered),
        records=len(records),
        answered=len(answered),
    )
