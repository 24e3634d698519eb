"""Beam search: several texts of a prompt at the same time, the likeliest of which is taken in the end.

    search = BeamSearch(Reader(model, decoding), stop, decoding, constraint)
    texts = search(prompts, limits)

What is searched for is the largest Σ log p / length^penalty, as in `generate(num_beams=…)` of transformers: greedy in
the beams, exact in what is finished, and over when no beam can beat the worst that is kept (of its length so far). Only
tokens that fit a constraint are looked at, from the likeliest on until there are enough.

With a price for diversity every beam is a group of its own, which only goes on with itself and pays for the tokens that
those before it have just written (diverse beam search, arXiv 1610.02424, of groups of one); texts are then compared
without the price. At a temperature the continuations are drawn without replacement instead of being the likeliest
(Gumbel-top-k, arXiv 1903.06059), from the warped distribution, with numbers of each prompt's own.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from phases.agent.constraint import TRIED, Constraint, allowed
from phases.agent.depth import Reader
from phases.agent.design import Decoding
from phases.agent.penalties import penalised
from phases.agent.warping import warp
from phases.decoding import Rows, Text, batches


@dataclass(frozen=True)
class Beam:
    """A text so far."""

    row: int
    """Which of the rows has read it, all but its last token."""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    """Plain ones, as in `Text`."""
    score: float = 0.0
    """Sum of the log-probabilities that are searched by."""

    def longer(self, token: int, logprob: float, score: float) -> "Beam":
        """With one more token."""
        return Beam(self.row, (*self.tokens, token), (*self.logprobs, logprob), score)


Continuation = tuple[float, int, int, float, float]
"""Minus what it is ordered by, which beam of its group, token, score, plain log-probability."""


@dataclass
class Group:
    """Beams of one prompt that compete with each other."""

    prompt: int
    size: int
    limit: int
    penalty: float
    running: list[Beam]
    finished: list[tuple[float, Beam]] = field(default_factory=list)
    """The best texts that are whole, with their scores by length; `size` at most."""

    def finish(self, beam: Beam) -> None:
        """Keep a whole text if it is among the best."""
        self.finished.append((beam.score / len(beam.tokens) ** self.penalty, beam))
        self.finished = sorted(self.finished, key=lambda scored: -scored[0])[: self.size]

    @property
    def over(self) -> bool:
        """Whether no beam goes on, or none could beat the worst that is kept."""
        if not self.running or len(self.finished) < self.size:
            return not self.running
        divisor = float(len(self.running[0].tokens) ** self.penalty)
        return max(beam.score for beam in self.running) / divisor <= self.finished[-1][0]


@dataclass(frozen=True)
class Ahead:
    """What comes into question as the next token of N rows."""

    order_NV: torch.Tensor
    """What continuations are ordered by: the beam's score with the token, and noise where tokens are drawn."""
    score_NV: torch.Tensor
    plain_NV: torch.Tensor
    best: Sequence[tuple[Sequence[float], Sequence[int], Sequence[float], Sequence[float]]]
    """Of each row the orders, tokens, scores and plain log-probabilities of the best continuations."""


class BeamSearch:
    """Writes texts with several beams each."""

    def __init__(
        self,
        reader: Reader,
        stop: set[int],
        decoding: Decoding,
        constraint: Constraint | None = None,
        temperature: float = 0.0,
        seed: Sequence[int] = (),
    ) -> None:
        """A `temperature` above 0 is that of drawing, with numbers by the seed and the prompt's index."""
        self.reader, self.stop, self.decoding, self.constraint = reader, stop, decoding, constraint
        self.temperature, self.seed, self.warp = temperature, list(seed), warp(decoding)
        enough = decoding.beams * (2 + max(1, len(stop)))  # though all but one continuation of a beam may end
        self.width = enough if constraint is None else max(enough, TRIED)
        """Continuations of a row, and of a group, that are looked at."""
        self.generators: dict[int, np.random.Generator] = {}

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Sequence[int]], limits: Sequence[int], batch: int = 64) -> list[Text]:
        """The best text of each prompt; `batch` rows are read at a time. Raises `ValueError` for an empty prompt."""
        texts = [Text([], []) for _ in prompts]
        for chosen in batches(prompts, limits, max(1, batch // self.decoding.beams)):
            self.generators = {i: np.random.default_rng([*self.seed, i]) for i in chosen}
            groups = self._groups(chosen, limits)
            self._search(Rows(self.reader.model, [prompts[i] for i in chosen]), groups)
            for i in chosen:
                found = [scored for group in groups if group.prompt == i for scored in group.finished]
                best = max(found, key=lambda scored: scored[0])[1]
                texts[i] = Text(list(best.tokens), list(best.logprobs))
        return texts

    def _groups(self, chosen: Sequence[int], limits: Sequence[int]) -> list[Group]:
        beams, penalty = self.decoding.beams, self.decoding.length_penalty
        count, size = (beams, 1) if self.decoding.beam_diversity else (1, beams)
        return [Group(i, size, limits[i], penalty, [Beam(row)]) for row, i in enumerate(chosen) for _ in range(count)]

    def _search(self, rows: Rows, groups: Sequence[Group]) -> None:
        """Until all groups are over."""
        while groups:
            ahead = self._look(rows, groups)
            written: dict[int, Counter[int]] = {group.prompt: Counter() for group in groups}
            for group in groups:
                taken = self._advance(group, ahead, written[group.prompt])
                written[group.prompt].update(beam.tokens[-1] for beam in taken)
            groups = [group for group in groups if not group.over]
            parents = [beam.row for group in groups for beam in group.running]
            if not parents:
                return
            numbers = iter(range(len(parents)))
            for group in groups:
                group.running = [replace(beam, row=next(numbers)) for beam in group.running]
            tokens = [beam.tokens[-1] for group in groups for beam in group.running]
            rows.select(parents)
            rows.append(torch.tensor(tokens, device=ahead.plain_NV.device))

    def _look(self, rows: Rows, groups: Sequence[Group]) -> Ahead:
        """Read what is new."""
        logits_NV = rows.logits()
        plain_NV = logits_NV.float().log_softmax(-1)
        # Of groups that have just begun several share a row.
        beams = {beam.row: (beam, group.prompt) for group in groups for beam in group.running}
        tokens = [beams[row][0].tokens for row in range(len(beams))]
        scored_NV = self.reader.score(logits_NV, tokens)
        value_NV = plain_NV if scored_NV is logits_NV else scored_NV.float().log_softmax(-1)
        value_NV = penalised(value_NV, tokens, self.decoding)
        if self.temperature:
            temperature_N1 = value_NV.new_full((len(value_NV), 1), self.temperature, dtype=torch.float64)
            value_NV = self.warp(value_NV.double(), temperature_N1).log_softmax(-1)
        score_NV = value_NV + value_NV.new_tensor([beams[row][0].score for row in range(len(beams))])[:, None]
        order_NV = score_NV + self._noise(beams, score_NV) if self.temperature else score_NV
        order_NK, token_NK = order_NV.topk(min(self.width, order_NV.shape[1]))
        found = (order_NK, token_NK, score_NV.gather(1, token_NK), plain_NV.gather(1, token_NK))
        best = list(zip(*(values.tolist() for values in found), strict=True))
        return Ahead(order_NV, score_NV, plain_NV, best)

    def _noise(self, beams: Mapping[int, tuple[Beam, int]], like: torch.Tensor) -> torch.Tensor:
        """(N, V) Gumbel noise, of each row from its prompt's generator."""
        noise = [self.generators[beams[row][1]].gumbel(size=like.shape[1]) for row in range(len(beams))]
        return torch.from_numpy(np.stack(noise)).to(like)

    def _advance(self, group: Group, ahead: Ahead, written: Mapping[int, int]) -> list[Beam]:
        """One more token for the beams of a group; those that were taken, finished or not."""
        taken: list[Beam] = []
        going: list[Beam] = []
        last = len(group.running[0].tokens) + 1 >= group.limit
        for beam in self._fitting(group, ahead, written):
            if not last and beam.tokens[-1] not in self.stop:
                going.append(beam)
            elif len(taken) < group.size:  # what ends has to be among the best, or another beam could not go on
                group.finish(beam)
            taken.append(beam)
            if len(going) == group.size or (last and len(taken) == group.size):
                break
        group.running = going
        return taken

    def _fitting(self, group: Group, ahead: Ahead, written: Mapping[int, int]) -> Iterator[Beam]:
        """The beams with a token more that fits, the best first; each with one where none of the best fits."""
        found = 0
        lines = (self._line(number, beam, ahead, written) for number, beam in enumerate(group.running))
        for tried, (_, number, token, score, plain) in enumerate(heapq.merge(*lines)):
            if found and tried >= self.width:
                return
            beam = group.running[number]
            if self.constraint is None or self.constraint.fits(group.prompt, beam.tokens, token):
                found += 1
                yield beam.longer(token, plain, score)
        if not found:
            longer = [self._forced(group.prompt, beam, ahead) for beam in group.running]
            yield from sorted(longer, key=lambda beam: -beam.score)

    def _line(self, number: int, beam: Beam, ahead: Ahead, written: Mapping[int, int]) -> Iterable[Continuation]:
        """The best continuations of a beam, the best first."""
        price = self.decoding.beam_diversity
        line = (
            (price * written[token] - order, number, token, score, plain)
            for order, token, score, plain in zip(*ahead.best[beam.row], strict=True)
            if order > float("-inf")
        )
        return sorted(line) if price else line

    def _forced(self, prompt: int, beam: Beam, ahead: Ahead) -> Beam:
        """A beam with the likeliest token that fits, or with the likeliest of all where none does."""
        orders_V = ahead.order_NV[beam.row], ahead.plain_NV[beam.row]
        token = allowed(self.constraint, prompt, beam.tokens, 1, *orders_V)[0]
        score, plain = float(ahead.score_NV[beam.row, token]), float(ahead.plain_NV[beam.row, token])
        return beam.longer(token, plain, score if score > float("-inf") else beam.score + plain)
