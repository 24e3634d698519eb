"""How many sequences run together when requests arrive at random, and how long one waits: closed forms, monotone.

    B = rate · output · TPOT(B)                       Little's law; one root, since TPOT grows ever slower with B
    prompts wait for the engine's cycles: the gated M/G/1 queue with vacations (`engine_wait`)
    slots wait as in M/M/c (Sakasegawa 1977): E2E · u^(√(2(c+1)) − 1) / c(1 − u)

`queueing.py` simulates the same engine step by step; tests compare the two. The closed forms are here because a
recommendation needs thousands of answers in a second, and an order that no chance disturbs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

STEPS, PRECISION = 100, 1e-15
NORMAL = {50: 0.0, 95: 1.6449, 99: 2.3263}
"""Quantiles of the standard normal distribution."""
_STANDARD = NormalDist()


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait that happens with some probability and is exponential then: exact for M/M/1 (Kleinrock 1975). Seconds."""

    mean: float
    probability: float

    def percentile(self, percent: float) -> float:
        """The wait that `percent` % of the requests do not exceed."""
        if self.mean == 0 or self.probability == 0:
            return 0.0
        if not math.isfinite(self.mean):
            return math.inf
        beyond = self.probability / (1 - percent / 100)
        return max(0.0, self.mean / self.probability * math.log(beyond))


@dataclass(frozen=True, slots=True)
class EngineWait:
    """What a busy engine adds to the time of one's own prompt: something certain, and something random. Seconds."""

    probability: float
    """That an arrival finds the engine at work."""
    certain: float
    random: float
    """Mean of the rest."""
    variance: float

    @property
    def mean(self) -> float:
        """Over all requests."""
        return self.probability * (self.certain + self.random)

    def percentile(self, percent: float) -> float:
        """The wait that `percent` % do not exceed; the random part as gamma distributed (Wilson & Hilferty 1931)."""
        if not math.isfinite(self.random):
            return math.inf
        idle = 1 - percent / 100
        if self.probability <= idle:
            return 0.0
        # A gamma's median falls as it widens, so that rare long waits would make the median fall as the load rises.
        widest = 1.0 if percent <= 50 else 2.0
        ninth = min(self.variance / self.random**2, widest) / 9 if self.random > 0 else 0.0
        z = _STANDARD.inv_cdf(1 - idle / self.probability)
        return self.certain + self.random * max(0.0, 1 - ninth + z * math.sqrt(ninth)) ** 3


def steady_batch(rate: float, output: float, slots: float, tpot: Callable[[float], float]) -> float:
    """Sequences decoded together at `rate` requests per second; infinite where `slots` do not suffice.

    False position with the Illinois rule (Dowell & Jarratt 1971): a dozen evaluations where bisection takes fifty.
    """

    def surplus(batch: float) -> float:
        return rate * output * tpot(batch) - batch

    low, high = 0.0, slots
    above, below = surplus(low), surplus(high)
    if below > 0:
        return math.inf
    side = 0
    for _ in range(STEPS):
        middle = (low * below - high * above) / (below - above) if below < above else high
        found = surplus(middle)
        if abs(found) <= PRECISION * middle or high - low <= PRECISION * high:
            return middle
        if found > 0:
            low, above, below, side = middle, found, below / 2 if side == 1 else below, 1
        else:
            high, below, above, side = middle, found, above / 2 if side == -1 else above, -1
    return high


def engine_wait(rate: float, prompt: float, step: float, counted: float, batch: float, chunks: int) -> EngineWait:
    """Of prompts that arrive at random where `batch` sequences run and a step of theirs takes `step` seconds.

    `counted`: what the time of one's own prompt has of a step already.

    An arrival waits for the end of the engine's cycle and is prefilled in the next, in `chunks` steps, with whoever
    arrived meanwhile. Cycles are C = step + k · prompt with k Poisson of mean rate · C, of which an arrival sees one of
    mean E[C²] / E[C] (Takagi 1991, Queueing Analysis I). Infinite where prompts come faster than they are read.
    """
    running = 1 - math.exp(-batch)
    each = prompt + (chunks - 1) * step * running
    load = rate * each
    if load >= 1:
        return EngineWait(1.0, 0.0, math.inf, 0.0)
    met = load / (1 - load**2)
    seen = step / (1 - load) + met * each
    others = rate * seen
    variance = (seen**2 + met * each**2) / 12 + (others + (0.5 + load) ** 2 * met) * each**2
    return EngineWait(max(running, load), max(0.0, chunks * step - counted), seen / 2 + others * each, variance)


def slot_wait(batch: float, slots: float, answer: float) -> Wait:
    """For a place in the batch, each held for `answer` seconds, `batch` of `slots` taken on average."""
    use = batch / slots
    if use >= 1:
        return Wait(math.inf, 1.0)
    taken = use ** (math.sqrt(2 * (slots + 1)) - 1)
    return Wait(answer * taken / (slots * (1 - use)), taken)


def token_percentile(mean: float, prompt: float, met: float, output: float, percent: int) -> float:
    """TPOT's percentile: a request meets `met` prompts on average (Poisson), and each delays all its tokens' sum."""
    spread = prompt * math.sqrt(met) / max(1.0, output)
    return mean + NORMAL[percent] * spread
