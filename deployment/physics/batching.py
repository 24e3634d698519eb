"""How many sequences run together when requests arrive at random, and how long one waits: closed forms, monotone.

    B = rate · output · TPOT(B)                       Little's law; one root, since TPOT grows ever slower with B
    prompts wait as in M/G/1 (Pollaczek–Khinchine, all prompts alike): ρ · prompt / 2(1 − ρ)
    slots wait as in M/M/c (Sakasegawa 1977): E2E · u^(√(2(c+1)) − 1) / c(1 − u)

Percentiles take a wait to be exponential where there is one: P(W > t) = p · exp(−p · t / mean), exact for M/M/1
(Kleinrock 1975). `queueing.py` simulates the same engine step by step; a test compares the two. The closed forms are
here because a recommendation needs thousands of answers in a second, and an order that no chance disturbs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

STEPS, PRECISION = 100, 1e-15
NORMAL = {50: 0.0, 95: 1.6449, 99: 2.3263}
"""Quantiles of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait that happens with some probability and is exponential then. Seconds."""

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


def prompt_wait(rate: float, prompt: float) -> Wait:
    """Behind prompts that came before; infinite where they come faster than they are read."""
    load = rate * prompt
    if load >= 1:
        return Wait(math.inf, 1.0)
    return Wait(load * prompt / (2 * (1 - load)), load)


def slot_wait(batch: float, slots: float, answer: float) -> Wait:
    """For a place in the batch, each held for `answer` seconds, `batch` of `slots` taken on average."""
    use = batch / slots
    if use >= 1:
        return Wait(math.inf, 1.0)
    taken = use ** (math.sqrt(2 * (slots + 1)) - 1)
    return Wait(answer * taken / (slots * (1 - use)), taken)


def together(waits: tuple[Wait, ...]) -> Wait:
    """The sum of waits, as one."""
    return Wait(sum(wait.mean for wait in waits), max(wait.probability for wait in waits))


def token_percentile(mean: float, prompt: float, met: float, output: float, percent: int) -> float:
    """TPOT's percentile: a request meets `met` prompts on average (Poisson), and each delays all its tokens' sum."""
    spread = prompt * math.sqrt(met) / max(1.0, output)
    return mean + NORMAL[percent] * spread
