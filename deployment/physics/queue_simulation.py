"""An engine that batches continuously, simulated step by step: who waits, who runs, when each token comes.

An engine works in steps. A step decodes one token of every running sequence and prefills whoever waits and finds a
slot, as many prompts as its token budget holds (Orca, Yu et al. 2022; chunked prefill, Agrawal et al. 2024, arXiv
2403.02310). With b sequences and p prompts it takes

    base + slope · b + p · prefill       seconds        (b = 0: the prefills alone)

and every running sequence waits for it: that is how a prompt delays the others' tokens. Between two changes of the
batch all steps are alike, so the clock jumps from change to change: exact for this engine, some 10 µs a request.
"""

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Service:
    """How fast one replica works. Seconds."""

    prefill: float
    """One prompt, alone."""
    base: float
    """One decoding step, what does not depend on the batch: weights, launches, communication."""
    slope: float = 0.0
    """More for each sequence in the step: its keys and values, its arithmetic."""
    slots: int = 1
    """Sequences at once: what the KV pool holds, at most the engine's limit."""
    prompt_share: float = 1.0
    """One prompt's share of the tokens that a step may hold; above 1 it is prefilled in chunks over several steps."""
    tokens_per_step: float = 1.0
    """Tokens that one step yields for a sequence; above 1 with speculation."""

    def step(self, batch: float) -> float:
        """One decoding step of `batch` sequences, seconds."""
        return self.base + self.slope * batch

    @property
    def prompts_per_step(self) -> int:
        """Whole prompts that one step holds: at least 1, and no more than there are slots for."""
        if self.prompt_share * self.slots <= 1:
            return self.slots
        return max(1, int(1 / self.prompt_share + 1e-9))

    @property
    def chunks(self) -> int:
        """Steps over which one prompt is prefilled."""
        return max(1, math.ceil(self.prompt_share - 1e-9))

    @property
    def steps_per_prompt(self) -> float:
        """Steps that a prompt takes of a busy engine: its chunks, or its part of a step that it shares."""
        return self.chunks if self.chunks > 1 else 1 / self.prompts_per_step


class Lengths:
    """Output lengths: gamma distributed about a mean, whole tokens, at least 1."""

    def __init__(self, mean: float, variation: float, draw: random.Random) -> None:
        self.mean, self.draw = mean, draw
        self.shape = 0.0 if variation == 0 else variation**-2

    def one(self) -> int:
        """A request's output tokens; `variation` 1 is exponential, 0 always the mean."""
        drawn = self.mean if self.shape == 0 else self.draw.gammavariate(self.shape, self.mean / self.shape)
        return max(1, round(drawn))


class Simulation:
    """One run. Requests are numbered as they arrive; those from `first` to `last` are measured."""

    def __init__(self, service: Service, lengths: Lengths, first: int, last: int) -> None:
        self.service, self.lengths, self.first, self.last = service, lengths, first, last
        self.now, self.steps, self.number = 0.0, 0, 0
        self.waiting: deque[tuple[int, float]] = deque()  # number, arrival
        self.arrivals: deque[float] = deque()
        self.running: list[tuple[int, int, float, int]] = []  # last step, number, time of the first token, tokens
        self.ttft: list[float] = []
        self.tpot: list[float] = []
        self.done = 0
        self.tokens = self.occupied = self.since = 0.0

    def start_running(self, sequences: int) -> None:
        """Sequences that run already, each somewhere in its life; they are not measured."""
        random_share, per_step = self.lengths.draw.random, self.service.tokens_per_step
        self.running = [
            (max(1, math.ceil(self.lengths.one() * random_share() / per_step)), -1, 0.0, 0) for _ in range(sequences)
        ]
        heapq.heapify(self.running)

    def enter(self, arrival: float) -> None:
        """One request arrives, or did so before the start. With the first that is measured, so are the totals."""
        if self.number == self.first:
            self.occupied, self.tokens, self.since = 0.0, 0.0, self.now
        self.waiting.append((self.number, arrival))
        self.number += 1

    def run(self) -> None:
        """Until every measured request has departed."""
        wanted, slots, arrivals = self.last - self.first, self.service.slots, self.arrivals
        while self.done < wanted:
            while arrivals and arrivals[0] <= self.now:
                self.enter(arrivals.popleft())
            if self.waiting and len(self.running) < slots:
                self._prefill()
            elif self.running:
                self._advance(self._alike_steps(), 0.0)
            else:
                self.now = arrivals[0]

    def _prefill(self) -> None:
        """One step (several for a prompt in chunks) that prefills as many waiting prompts as it may hold."""
        service, waiting = self.service, self.waiting
        prompts = min(len(waiting), service.slots - len(self.running), service.prompts_per_step)
        chunks = service.chunks
        admitted = [waiting.popleft() for _ in range(prompts)]
        for _ in range(chunks):
            self._advance(1, prompts * service.prefill / chunks)
        self.tokens += prompts
        for number, arrival in admitted:
            tokens = self.lengths.one()
            if self.first <= number < self.last:
                self.ttft.append(self.now - arrival)
            steps = math.ceil((tokens - 1) / service.tokens_per_step)
            heapq.heappush(self.running, (self.steps + steps, number, self.now, tokens))
        self._depart()

    def _alike_steps(self) -> int:
        """How many steps pass until the first sequence ends, or an arrival comes that finds a slot."""
        steps, batch = self.running[0][0] - self.steps, len(self.running)
        if self.arrivals and batch < self.service.slots:
            until = math.ceil((self.arrivals[0] - self.now) / (self.service.base + self.service.slope * batch))
            steps = min(steps, max(1, until))
        return steps

    def _advance(self, steps: int, prefill: float) -> None:
        batch = len(self.running)
        if batch:
            prefill += steps * (self.service.base + self.service.slope * batch)
            self.occupied += batch * prefill
            self.tokens += batch * steps * self.service.tokens_per_step
        self.now += prefill
        self.steps += steps
        if batch and self.running[0][0] <= self.steps:
            self._depart()

    def _depart(self) -> None:
        running = self.running
        while running and running[0][0] <= self.steps:
            _, number, first_token, tokens = heapq.heappop(running)
            if self.first <= number < self.last:
                self.done += 1
                if tokens > 1:
                    self.tpot.append((self.now - first_token) / (tokens - 1))
