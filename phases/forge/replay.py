"""Kept dreams in a bounded buffer, by how good and how new they are, and the rows that a step replays of them.

What is drawn is a function of the buffer's content, the seed and the step; the content goes to disk as tensors. So a
killed run continues bit for bit.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from phases.forge.dream_filter import ngrams
from phases.forge.dreams import Dream
from phases.training.batches import Rows

NO_LABEL = -1


@dataclass(frozen=True)
class Entry:
    """A dream in the buffer."""

    tokens: tuple[int, ...]
    """Prompt and what was written."""
    prompt: int
    """Tokens of the prompt."""
    label: int
    """The temperature's index."""
    priority: float
    """As it was when the dream came in."""


class ReplayBuffer:
    """At most `capacity` different dreams; when it is full, a better one takes the place of the worst."""

    def __init__(self, capacity: int, novelty: float) -> None:
        """`novelty`: its say, 0 … 1, against that of quality."""
        self.capacity, self.novelty = capacity, novelty
        self.used = 0
        """Dreams that `rows` has put into rows so far, each as often as it was."""
        self.kept = 0
        """Dreams that `offer` has taken in so far."""
        self._entries: dict[tuple[int, ...], Entry] = {}  # by their tokens, the oldest first
        self._grams: Counter[tuple[int, ...]] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def offer(self, dreams: Sequence[Dream]) -> int:
        """Take in what deserves it; returns how many of these dreams are in the buffer now that were not before.

        priority = (1 − novelty) · quality + novelty · share of the dream's 3-grams that are not in the buffer yet.
        The lowest gives way to a higher one; of equals the oldest does, and a newcomer that only equals it stays out.
        """
        before = set(self._entries)
        for dream, quality in zip(dreams, qualities(dreams), strict=True):
            if dream.tokens not in self._entries:
                new = (1 - self.novelty) * quality + self.novelty * self._new_share(dream.tokens)
                self._admit(Entry(dream.tokens, len(dream.prompt.tokens), dream.label, new))
        kept = len(self._entries.keys() - before)
        self.kept += kept
        return kept

    def _new_share(self, tokens: Sequence[int]) -> float:
        """Share of 3-grams that no dream in the buffer has; 1 when there is none."""
        found = set(ngrams(tokens, 3))
        return sum(self._grams[gram] == 0 for gram in found) / len(found) if found else 1.0

    def _admit(self, entry: Entry) -> None:
        if len(self) == self.capacity:
            lowest = min(self._entries.values(), key=lambda e: e.priority)
            if entry.priority <= lowest.priority:
                return
            del self._entries[lowest.tokens]
            self._grams.subtract(set(ngrams(lowest.tokens, 3)))
        self._entries[entry.tokens] = entry
        self._grams.update(set(ngrams(entry.tokens, 3)))

    def rows(
        self, step: int, count: int, block_tokens: int, seed: int, prompt_weight: float, pad: int
    ) -> tuple[Rows, torch.Tensor]:
        """The `count` rows of a step, and (B, T) int64 labels: a temperature's index at each dream's last token, or −1.

        Whole dreams in a seeded order, repeated when it ends, one after another as long as they fit. `pad` stands after
        a dream that does not end with it, and in a row's rest. T = `block_tokens`; the row's last token is always
        padding, so that the model reads every dream whole.
        A token that was written weighs 1, one of a prompt (task or text) `prompt_weight`, a dream's first token and
        padding 0; then each row's weights are scaled to sum to 1. Every call counts in `used`.
        Raises `ValueError` when no dream fits a row.
        """
        fitting = [entry for entry in self._entries.values() if len(entry.tokens) <= block_tokens]
        if not fitting:
            raise ValueError(
                f"no dream of at most {block_tokens} tokens among {len(self)}; offer some before drawing rows"
            )
        tokens = np.full((count, block_tokens + 1), pad, dtype=np.int64)
        weight = np.zeros((count, block_tokens), dtype=np.float32)
        label = np.full((count, block_tokens), NO_LABEL, dtype=np.int64)
        row = start = 0
        for entry in _endless(fitting, np.random.default_rng([seed, 5, step])):
            end = start + len(entry.tokens)
            if end > block_tokens:
                row, start, end = row + 1, 0, len(entry.tokens)
            if row == count:
                break
            tokens[row, start:end] = entry.tokens
            # Position t predicts token t + 1: the dream's own tokens, from its second on.
            weight[row, start : end - 1] = prompt_weight
            weight[row, start + entry.prompt - 1 : end - 1] = 1.0
            label[row, end - 1] = entry.label
            self.used += 1
            # Between two dreams stands an end-of-text, as between two true texts.
            start = end + (entry.tokens[-1] != pad)
        weight /= weight.sum(1, keepdims=True)
        return Rows(torch.from_numpy(tokens), torch.from_numpy(weight)), torch.from_numpy(label)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that `load` needs, as tensors: flat tokens, (N, 3) sizes, prompts and labels, (N,) priorities."""
        facts = [[len(entry.tokens), entry.prompt, entry.label] for entry in self._entries.values()]
        return {
            "tokens": torch.tensor([token for tokens in self._entries for token in tokens], dtype=torch.long),
            "facts": torch.tensor(facts, dtype=torch.long).reshape(-1, 3),
            "priority": torch.tensor([entry.priority for entry in self._entries.values()], dtype=torch.float64),
            "counts": torch.tensor([self.used, self.kept]),
        }

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Become the buffer that gave this state."""
        tokens, facts = state["tokens"].tolist(), state["facts"].tolist()
        ends = accumulate(size for size, _, _ in facts)
        self._entries = {}
        for end, (size, prompt, label), priority in zip(ends, facts, state["priority"].tolist(), strict=True):
            dreamt = tuple(tokens[end - size : end])
            self._entries[dreamt] = Entry(dreamt, prompt, label, priority)
        self._grams = Counter(gram for dreamt in self._entries for gram in set(ngrams(dreamt, 3)))
        self.used, self.kept = state["counts"].tolist()


def qualities(dreams: Sequence[Dream]) -> list[float]:
    """The share of the other dreams of its kind, task or text, that are less likely than each; ties count half.

    By rank, and within a kind: an answer is far likelier than text is, and both are to be replayed. 1 for a lone one.
    """
    kinds = {
        is_task: np.array([dream.nats for dream in dreams if (dream.prompt.item is not None) == is_task])
        for is_task in (True, False)
    }
    result = []
    for dream in dreams:
        nats = kinds[dream.prompt.item is not None]
        below = (nats > dream.nats).sum() + ((nats == dream.nats).sum() - 1) / 2
        result.append(float(below / (len(nats) - 1)) if len(nats) > 1 else 1.0)
    return result


def _endless(entries: Sequence[Entry], generator: np.random.Generator) -> Iterator[Entry]:
    """All entries in a random order, then in another, and so on."""
    while True:
        for index in generator.permutation(len(entries)):
            yield entries[index]
