"""Near-duplicates among a million records of 80 words: processor time, memory, and what was missed of planted pairs.

    python -m tests.benchmarks --only near_duplicates

Words follow Zipf's law over 50,000 of them. One text in ten has a planted copy in which some words are exchanged; its
true Jaccard similarity is computed with Python sets, and those of at least 0.8 have to be found. In a process of its
own, whose processor time (all threads) and peak memory (texts included) are measured.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

WORDS, VOCABULARY = 80, 50_000
_LETTERS = str.maketrans("0123456789", "abcdefghij")


def run(texts: int = 1_000_000) -> dict[str, Any]:
    """Figures of one run over this many texts."""
    command = [sys.executable, "-m", "tests.benchmarks.near_duplicates", "--texts", str(texts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def planted(texts: int, seed: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Texts, and the pairs (original, later copy) among them; copies have 0 to 7 of their words exchanged."""
    rng = np.random.default_rng(seed)
    chances = 1 / np.arange(1, VOCABULARY + 1)
    edges = np.cumsum(chances / chances.sum())
    originals = texts - texts // 11
    made: list[str] = []
    for first in range(0, originals, 10_000):
        count = min(10_000, originals - first)
        made += [" ".join(map(letters, row)) for row in np.searchsorted(edges, rng.random((count, WORDS))).tolist()]
    pairs = []
    for original in rng.choice(originals, texts - originals, replace=False).tolist():
        words = made[original].split()
        for place in rng.choice(WORDS, rng.integers(0, 8), replace=False).tolist():
            words[place] = letters(int(rng.integers(10**9)))
        pairs.append((original, len(made)))
        made.append(" ".join(words))
    return made, pairs


def letters(number: int) -> str:
    """A word of letters for a number: digits would tell texts apart."""
    return str(number).translate(_LETTERS)


def similarity(first: str, second: str, size: int) -> float:
    """Jaccard similarity of word shingles, by Python's sets."""
    sets = []
    for text in (first, second):
        words = text.split()
        sets.append({tuple(words[i : i + size]) for i in range(len(words) - size + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def measured(texts: int) -> dict[str, Any]:
    """One run in this process."""
    from distillation.curation.near_duplicates import NearDuplicates, near_duplicates

    config = NearDuplicates()
    made, pairs = planted(texts, seed=1)
    start = time.process_time()
    found = near_duplicates(made, config, seed=0)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    alike = [pair for pair in pairs if similarity(made[pair[0]], made[pair[1]], config.shingle) >= config.threshold]
    removed = sum(not (found.keep[a] and found.keep[b]) for a, b in alike)
    return {
        "texts": texts,
        "processor_seconds": round(seconds, 1),
        "peak_gb": round(peak, 2),
        "planted_at_threshold": len(alike),
        "recall": round(removed / len(alike), 5),
        "removed": int((~found.keep).sum()),
        "pairs_compared": found.compared,
        "pairs_not_compared": found.not_compared,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=1_000_000)
    print(json.dumps(measured(parser.parse_args().texts)))
