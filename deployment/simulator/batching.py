"""An engine that batches continuously, as plain arithmetic on its own clock: no waiting, no threads, no network.

    batch = Batch(timing)
    batch.add(Sequence(prompt_tokens=1024, output_tokens=256))
    seconds, emitted = batch.step()

A step decodes the running sequences and, within its token budget, prefills who waits (Orca, Yu et al. 2022; chunked
prefill, Agrawal et al. 2024, arXiv 2403.02310). Prompts are admitted in order, as long as a slot and room for prompt
and answer are free: a sequence that runs is never thrown out, which is the one way in which this engine is kinder than
vLLM's. `running.py` makes it answer requests in real time; `playing.py` runs it as fast as it can.
"""

from collections import deque
from dataclasses import dataclass, field

from deployment.simulator.timing import Timing


@dataclass(eq=False, slots=True)
class Sequence:
    """One request. Times are on the engine's clock, in seconds."""

    prompt_tokens: int
    output_tokens: int
    arrived: float = 0.0
    queued: float = 0.0
    """The engine has it: what came before (HTTP, tokenisation) is no queueing."""
    started: float | None = None
    """First taken into a step."""
    first: float | None = None
    """Its first token came."""
    finished: float | None = None
    left: int = field(init=False)
    """Tokens of the prompt that are not yet prefilled."""
    written: int = 0
    """Tokens of the answer."""
    credit: float = 0.0
    """Fractions of tokens that speculation has earned."""

    def __post_init__(self) -> None:
        self.left = self.prompt_tokens

    @property
    def tokens(self) -> int:
        """That it may hold at most."""
        return self.prompt_tokens + self.output_tokens

    @property
    def queue_time(self) -> float:
        """From when the engine had it to its first step. A clock that lags shows a little less, never below 0."""
        assert self.started is not None
        return max(0.0, self.started - self.queued)

    @property
    def ttft(self) -> float:
        """Time to its first token."""
        assert self.first is not None
        return self.first - self.arrived

    @property
    def tpot(self) -> float | None:
        """Time per token after the first: (end-to-end − TTFT) / (tokens − 1); None: there was one alone."""
        assert self.first is not None and self.finished is not None
        return (self.finished - self.first) / (self.written - 1) if self.written > 1 else None


class Batch:
    """One replica's running and waiting sequences."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.now = 0.0
        self.waiting: deque[Sequence] = deque()
        self.prefilling: list[Sequence] = []
        self.running: list[Sequence] = []

    @property
    def idle(self) -> bool:
        """Nothing to do."""
        return not (self.waiting or self.prefilling or self.running)

    @property
    def held_tokens(self) -> int:
        """Tokens in the KV pool."""
        return sum(s.prompt_tokens - s.left + s.written for s in (*self.prefilling, *self.running))

    def add(self, sequence: Sequence, at: float = 0.0) -> None:
        """A request arrives, at this time."""
        sequence.queued = at
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Its client went away."""
        for place in (self.waiting, self.prefilling, self.running):
            if sequence in place:
                place.remove(sequence)

    def step(self) -> tuple[float, list[tuple[Sequence, int]]]:
        """One step: its seconds, and who got how many tokens at its end. The clock goes on."""
        self._admit()
        decoding = list(self.running)
        seconds = self.timing.step(len(decoding)) + self._prefill(self.timing.step_tokens - len(decoding))
        self.now += seconds
        emitted = [(one, self._decode(one)) for one in decoding]
        emitted += [(one, self._begin(one)) for one in [s for s in self.prefilling if not s.left]]
        self.running = [one for one in self.running if one.finished is None]
        return seconds, [pair for pair in emitted if pair[1]]

    def _admit(self) -> None:
        """From the queue's head, while there is a slot and room; a request that fits nowhere else runs alone."""
        inside = [*self.prefilling, *self.running]
        room = self.timing.kv_tokens - sum(one.tokens for one in inside)
        while self.waiting and len(inside) < self.timing.slots and (self.waiting[0].tokens <= room or not inside):
            one = self.waiting.popleft()
            one.started = self.now
            room -= one.tokens
            inside.append(one)
            self.prefilling.append(one)

    def _prefill(self, budget: int) -> float:
        """Prompts, or pieces of them, in order of arrival."""
        seconds = 0.0
        for one in self.prefilling:
            piece = min(one.left, max(1, budget))
            seconds += self.timing.prefill(one.prompt_tokens) * piece / one.prompt_tokens
            one.left -= piece
            budget -= piece
            if budget <= 0:
                break
        return seconds

    def _begin(self, one: Sequence) -> int:
        """Its prompt is done: the first token."""
        self.prefilling.remove(one)
        self.running.append(one)
        one.first, one.written = self.now, 1
        self._end(one)
        return 1

    def _decode(self, one: Sequence) -> int:
        one.credit += self.timing.tokens_per_step
        tokens = min(int(one.credit), one.output_tokens - one.written)
        one.credit -= tokens
        one.written += tokens
        self._end(one)
        return tokens

    def _end(self, one: Sequence) -> None:
        if one.written >= one.output_tokens:
            one.finished = self.now
