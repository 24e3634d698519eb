"""On-policy distillation: the student writes, and the teacher, in memory, judges every token (GKD, arXiv 2306.13649).

    source = OwnTexts(rows, records, model, tokenizer, OnPolicy(share=0.5), steps, seed)
    train(OnPolicyObjective(model, teacher, OnPolicy(share=0.5)), source, …)

A share λ of a step's rows are texts that the student has just written for the records' prompts; the others are
records. Nothing flows through the sampling. What is drawn is a function of the seed, the step and the student's
weights, so a killed run repeats it. It costs the teacher's memory, a reading of every row by the teacher, and the
writing: a step takes several times as long as a cached one.
"""

from collections.abc import Sequence
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import torch

from distillation.losses.divergences import generalised_jsd
from distillation.record import Record
from distillation.training.cached_rows import CachedRows
from distillation.training.live_objective import LiveObjective
from distillation.training.rows import render_messages
from distillation.training.strategy_config import OnPolicy
from phases.decoding import Sampler, decode, encode, stop_ids
from phases.errors import DataError
from phases.training.batches import Rows

_CHOICE, _DRAWS = 61, 67
"""Streams of random numbers."""
OWN = 1
"""Mark of a row that the student wrote."""


class OwnTexts:
    """Rows of records, some of which give way to texts of the student's own."""

    def __init__(
        self,
        rows: CachedRows,
        records: Sequence[Record],
        model: Any,
        tokenizer: Any,
        strategy: OnPolicy,
        steps: int,
        seed: int,
    ) -> None:
        """Raises `DataError` when no prompt leaves room for an answer in a row."""
        self.given, self.model, self.strategy, self.seed = rows, model, strategy, seed
        self.width = rows.parts[0].rows.block_tokens + 1
        self.first = round(strategy.start * steps)
        prompts = [encode(tokenizer, render_messages(tokenizer, record.messages)) for record in records]
        self.prompts = [prompt for prompt in prompts if len(prompt) + strategy.max_tokens <= self.width]
        if not self.prompts:
            raise DataError(
                f"strategy.max_tokens={strategy.max_tokens}: no prompt leaves so much room in a row of "
                f"{self.width - 1} tokens; lower it, or raise block_tokens"
            )
        self.stop, self.end = stop_ids(model, tokenizer), int(tokenizer.eos_token_id)

    def rows(self, step: int, count: int) -> Rows:
        """The `count` rows of a step; the last of them are the student's own."""
        given, own = self.given.rows(step, count), self.own_rows(step, count)
        tokens_BT, weight_BT = given.tokens_BT.clone(), given.weight_BT.clone()
        marks_BT1 = torch.zeros((*weight_BT.shape, 1), dtype=torch.int64)
        for row, texts in zip(range(count - own, count), self._write(step, own), strict=True):
            tokens_BT[row], weight_BT[row] = self._packed(texts)
            marks_BT1[row] = OWN
        return Rows(tokens_BT, weight_BT, marks_BT1)

    def own_rows(self, step: int, count: int) -> int:
        """How many of a step's rows the student writes: λ of all since it began to, to the next whole row."""
        done = step - self.first
        share = self.strategy.share * count
        return 0 if done < 0 else int((done + 1) * share + 1e-9) - int(done * share + 1e-9)

    def _write(self, step: int, own: int) -> list[list[tuple[list[int], list[int]]]]:
        """(prompt, what was written) of each text of each row; as many a row as fit whatever their length."""
        order = cycle(np.random.default_rng([self.seed, _CHOICE, step]).permutation(len(self.prompts)).tolist())
        rows: list[list[list[int]]] = []
        for _ in range(own):
            rows.append([])
            used = 0
            for index in order:
                size = len(self.prompts[index]) + self.strategy.max_tokens
                if used + size > self.width:
                    break
                rows[-1].append(self.prompts[index])
                used += size
        flat = [prompt for row in rows for prompt in row]
        limits = [self.strategy.max_tokens] * len(flat)
        choose = Sampler([self.strategy.temperature] * len(flat), [self.seed, _DRAWS, step])
        training = self.model.training
        self.model.eval()
        written = iter(decode(self.model, flat, limits, self.stop, choose)) if flat else iter(())
        self.model.train(training)
        return [[(prompt, next(written)) for prompt in row] for row in rows]

    def _packed(self, texts: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
        """(T+1,) tokens and (T,) weights of a row: every token that was written counts alike, and the row 1."""
        tokens, weight = [], []
        for prompt, written in texts:
            tokens += [*prompt, *written]
            weight += [0.0] * len(prompt) + [1.0] * len(written)
        rest = self.width - len(tokens)
        weight_T = torch.tensor([*weight, *[0.0] * rest])[1:]
        return torch.tensor([*tokens, *[self.end] * rest]), weight_T / weight_T.sum()


class OnPolicyObjective(LiveObjective):
    """The divergence on texts of the student's own; on records cross-entropy has its share as well."""

    def __init__(self, model: Any, teacher: Any, strategy: OnPolicy) -> None:
        divergence = partial(generalised_jsd, beta=strategy.beta, tau=strategy.tau)
        super().__init__(model, teacher, divergence, strategy.alpha)
        self.on_records = strategy.alpha

    def forward(
        self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float, marks_BTC: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Σ weight · loss, nats."""
        assert marks_BTC is not None, "rows come from OwnTexts"
        own_B = marks_BTC[:, 0, 0] == OWN
        total, seen = weight_BT.new_zeros(()), dict[str, torch.Tensor]()
        for name, rows, share in (("records", ~own_B, self.on_records), ("own", own_B, 1.0)):
            if bool(rows.any()):
                self.alpha = share
                total = total + super().forward(tokens_BT[rows], weight_BT[rows], progress)
                seen |= {f"{name}/{key}": value for key, value in self.seen.items()}
        self.seen = seen
        return total
