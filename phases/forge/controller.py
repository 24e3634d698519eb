"""The closed loop: every task's difficulty holds its success in a band, rate and noise hold the exponent to a course.

Learning is fastest where errors are neither rare nor the rule: the 85 % rule gives an optimal error of 15.87 % for
binary choices (Wilson et al. 2019, doi 10.1038/s41467-019-12552-4); these tasks are open questions, and the band is
55 to 75 %. Difficulty and noise are under integral control: while an error lasts they move, so no constant disturbance
is left over. The integrator is the clipped actuator itself: it cannot wind up at a limit and leaves it with the first
error of the other sign (Åström & Murray, Feedback Systems, 2nd ed., section 11.4). Where no difficulty brings a task
into the band, shares tilt towards easier or harder tasks until the success over all is in it. Inside the band nothing
moves: the dead band keeps the measurement's noise out of the actuator. The rate follows the exponent's error in
proportion.

The functions are the update rules; `Loop` holds the state. Costs nothing beside a training step.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from phases.forge.config import Chaos

LEAST = 0.05
"""Least say of a task in `focus`, where success of one half has 0.25: a task at 0 or 1 must be seen to move."""


def smoothed(past: float, new: float, smoothing: float) -> float:
    """An exponentially decaying count, smoothing · past + new.

    The success is the quotient of two of them, solved over asked items, so that every item has the same say and a
    step that asks one item does not outweigh a step that asked twenty.
    """
    return smoothing * past + new


def moved_difficulty(
    difficulty: float, success: float, band: tuple[float, float], gain: float, hardest: float
) -> float:
    """Integral control with a dead band: difficulty + gain · (success − nearest edge), within [0, hardest]."""
    outside = success - min(max(success, band[0]), band[1])
    return min(max(difficulty + gain * outside, 0.0), hardest)


def reference_course(first: float, last: float, progress: float) -> float:
    """The exponent that is wanted (nats a layer): a straight line from the first measured one, progress 0 to 1."""
    return first + (last - first) * progress


def rate_factor(error: float, gain: float, limits: tuple[float, float]) -> float:
    """exp(−gain · error) within `limits`: above its course (error > 0) the model learns more slowly."""
    low, high = (math.log(limit) for limit in limits)
    return math.exp(min(max(-gain * error, low), high))


def moved_noise(noise: float, error: float, gain: float, limit: float) -> float:
    """noise + gain · error within [0, limit]: noise trains a map that spreads small differences less."""
    return min(max(noise + gain * error, 0.0), limit)


def focused(successes: Sequence[float | None]) -> list[float]:
    """Shares in proportion to p · (1 − p), at least `LEAST`; a success not yet seen counts as one half.

    That is the variance of success: what is always or never solved teaches little (arXiv 2408.15099).
    """
    chances = [0.5 if success is None else success for success in successes]
    return _normalised([max(p * (1 - p), LEAST) for p in chances])


def tilted(shares: Sequence[float], successes: Sequence[float | None], tilt: float) -> list[float]:
    """Shares · exp(tilt · success), to sum 1: of all shares with the same mean success those nearest to `shares`.

    (In relative entropy: an exponential family.) A success not yet seen counts as one half.
    """
    chances = [0.5 if success is None else success for success in successes]
    return _normalised([share * math.exp(tilt * p) for share, p in zip(shares, chances, strict=True)])


def moved_tilt(tilt: float, success: float, band: tuple[float, float], gain: float, limit: float) -> float:
    """Integral control with a dead band: tilt + gain · (nearest edge − success), within ± limit."""
    outside = success - min(max(success, band[0]), band[1])
    return min(max(tilt - gain * outside, -limit), limit)


def _normalised(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


class Loop:
    """Both control loops and their state, in double precision."""

    def __init__(self, settings: Chaos, weights: Mapping[str, float]) -> None:
        """`weights` are the tasks in their order, with the shares that hold without `focus`."""
        self.settings, self.tasks = settings, tuple(weights)
        self._weights = list(weights.values())
        self._difficulty = [min(1.0, settings.hardest)] * len(weights)
        self._right, self._asked = [0.0] * len(weights), [0.0] * len(weights)
        self._first = self._exponent = self._reference = math.nan
        self._rate, self._noise, self._tilt = 1.0, 0.0, 0.0
        self.steps = self.held = 0
        """Steps in which items were asked, and in how many of them the success over all lay in the band."""

    def observe_success(self, right_K: torch.Tensor, asked_K: torch.Tensor) -> None:
        """Take in the (K,) solved and asked items of a step; a task that was not asked stays where it is."""
        s = self.settings
        for k, (right, asked) in enumerate(zip(right_K.tolist(), asked_K.tolist(), strict=True)):
            if asked:
                self._right[k] = smoothed(self._right[k], right, s.smoothing)
                self._asked[k] = smoothed(self._asked[k], asked, s.smoothing)
                success = self._right[k] / self._asked[k]
                self._difficulty[k] = moved_difficulty(self._difficulty[k], success, s.band, s.gain, s.hardest)
        overall = self.overall
        if overall is not None and bool(asked_K.any()):
            self._tilt = moved_tilt(self._tilt, overall, s.band, s.tilt_gain, s.tilt_limit)
            self.steps += 1
            self.held += s.band[0] <= overall <= s.band[1]

    def observe_exponent(self, value: float, progress: float) -> None:
        """Take in the measured exponent (nats a layer); `progress` is the done share of the loop's stages."""
        s = self.settings
        if math.isnan(self._first):
            self._first = value
        self._exponent, self._reference = value, reference_course(self._first, s.exponent, progress)
        error = value - self._reference
        self._rate = rate_factor(error, s.rate_gain, s.rate_limits)
        self._noise = moved_noise(self._noise, error, s.noise_gain, s.noise_limit)

    @property
    def success(self) -> dict[str, float | None]:
        """Smoothed share of solved items by task; None before the first."""
        seen = zip(self.tasks, self._right, self._asked, strict=True)
        return {task: right / asked if asked else None for task, right, asked in seen}

    @property
    def overall(self) -> float | None:
        """Smoothed share of all asked items that were solved; None before the first."""
        asked = sum(self._asked)
        return sum(self._right) / asked if asked else None

    @property
    def difficulty(self) -> dict[str, float]:
        """By task, in [0, hardest]."""
        return dict(zip(self.tasks, self._difficulty, strict=True))

    @property
    def shares(self) -> dict[str, float]:
        """Share of each task in what is drawn; they sum to 1."""
        success = list(self.success.values())
        shares = focused(success) if self.settings.focus else _normalised(self._weights)
        return dict(zip(self.tasks, tilted(shares, success, self._tilt), strict=True))

    @property
    def exponent(self) -> float | None:
        """The last measured exponent (nats a layer); None before the first."""
        return None if math.isnan(self._exponent) else self._exponent

    @property
    def rate(self) -> float:
        """Factor on the learning rates; 1 before the exponent is measured."""
        return self._rate

    @property
    def noise(self) -> float:
        """Noise on the embeddings as a share of their root mean square; 0 before the exponent is measured."""
        return self._noise

    @property
    def reference(self) -> float | None:
        """The exponent that was wanted at the last measurement (nats a layer); None before the first."""
        return None if math.isnan(self._reference) else self._reference

    def curves(self) -> dict[str, float]:
        """What is known now, for plots: by task, over all items asked, and both sides of the exponent's loop."""
        success = {task: value for task, value in self.success.items() if value is not None}
        curves = {f"success/{task}": value for task, value in success.items()}
        curves |= {f"difficulty/{task}": value for task, value in self.difficulty.items()}
        curves |= {"rate": self.rate, "noise": self.noise, "tilt": self._tilt}
        if self.overall is not None:
            curves["success"] = self.overall
        if not math.isnan(self._exponent):
            curves |= {"exponent": self._exponent, "exponent_reference": self._reference}
        return curves

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next update needs, as float64: (K,) by task, and the exponent's loop."""
        exponent = [self._first, self._exponent, self._reference, self._rate, self._noise]
        whole = [self._tilt, float(self.steps), float(self.held)]
        parts = {"difficulty": self._difficulty, "right": self._right, "asked": self._asked}
        parts |= {"exponent": exponent, "whole": whole}
        return {name: torch.tensor(values, dtype=torch.float64) for name, values in parts.items()}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continue from what `state` returned, bit for bit."""
        self._difficulty, self._right, self._asked = (state[name].tolist() for name in ("difficulty", "right", "asked"))
        self._first, self._exponent, self._reference, self._rate, self._noise = state["exponent"].tolist()
        self._tilt, steps, held = state["whole"].tolist()
        self.steps, self.held = int(steps), int(held)
