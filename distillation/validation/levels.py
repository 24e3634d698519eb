"""How a night's error rate is kept over many criteria and many nights.

*Criteria.* Holm's step-down (Scandinavian Journal of Statistics 6, 1979): the chance of one false claim among a night's
criteria is at most the night's α, however they hang together.

*Nights.* A student a night on the same sealed hold-out gives thirty chances of a false promotion. Each night therefore
gets a part of the whole α, and the parts sum to it at most, so that the chance of a single false promotion over all
nights is at most α whatever the nights have in common (the union bound). Three plans:

- `summable`: α/(k(k + 1)) in the k-th night that tests, without end: half of α at first, a sixth, a twelfth, …;
- `pocock` and `obrien_fleming`: the spending functions of Lan & DeMets (Biometrika 70, 1983), α·ln(1 + (e − 1)t) and
  2 − 2Φ(z_{α/2}/√t), over a fixed horizon of nights; t is the share of it that has passed. Each night tests another
  student, so their increments are spent as they are, without the joint distribution of a group-sequential trial.

What a promoted night spent goes to the next (online fallback, Tian & Ramdas, Statistical Methods in Medical Research
30, 2021): a rejected hypothesis needs its α no more, and a series in which students are good does not run dry. A night
without a test spends nothing.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from pydantic import Field
from scipy.special import ndtr, ndtri

from phases.errors import DataError, InputError
from phases.strict import StrictModel

Plan = Literal["summable", "pocock", "obrien_fleming"]


class SpendingConfig(StrictModel):
    """How the chance of a false promotion is spread over nights."""

    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Chance of a single false promotion over all nights that judge on one hold-out."""
    plan: Plan = "summable"
    """`summable` goes on without end; `pocock` is even over the horizon; `obrien_fleming` saves for its end."""
    nights: int = Field(30, ge=1)
    """The horizon of the last two."""


@dataclass(frozen=True)
class Spending:
    """What has been spent; kept by whoever runs the nights, as JSON."""

    alpha: float
    plan: Plan
    nights: int
    tested: int = 0
    """Nights that tested."""
    spent: float = 0.0
    """Sum over those nights of the plan's parts."""
    passed_on: float = 0.0
    """What the last promoted night hands to the next."""

    @classmethod
    def begin(cls, config: SpendingConfig) -> "Spending":
        """Nothing spent yet."""
        return cls(config.alpha, config.plan, config.nights)

    @property
    def available(self) -> float:
        """α of the next night that tests; 0: all is spent, and a new hold-out has to be sealed."""
        return self._part(self.tested + 1) + self.passed_on

    def after_test(self, rejected: bool) -> "Spending":
        """The state after a night that tested; `rejected`: its student was shown to be good enough."""
        return replace(
            self,
            tested=self.tested + 1,
            spent=self.spent + self._part(self.tested + 1),
            passed_on=self.available if rejected else 0.0,
        )

    def as_json(self) -> str:
        """For whoever keeps it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Spending":
        """The inverse. Raises `DataError` where the text is not such a state."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            raise DataError(
                f"not a state of alpha spending: {text[:60]!r}; begin a new series on a new hold-out"
            ) from None

    def for_config(self, config: SpendingConfig) -> "Spending":
        """Itself. Raises `InputError` where the config is no longer the one that the series began with."""
        if (self.alpha, self.plan, self.nights) != (config.alpha, config.plan, config.nights):
            raise InputError(
                f"this series spends alpha {self.alpha:g} as {self.plan} over {self.nights} nights; "
                "a plan cannot change on the same hold-out: put the old settings back or seal a new hold-out"
            )
        return self

    def _part(self, night: int) -> float:
        if self.plan == "summable":
            return self.alpha / (night * (night + 1))
        if night > self.nights:
            return 0.0
        return self._spent_by(night / self.nights) - self._spent_by((night - 1) / self.nights)

    def _spent_by(self, t: float) -> float:
        if self.plan == "pocock":
            return self.alpha * math.log(1 + (math.e - 1) * t)
        return 0.0 if t == 0 else float(2 * ndtr(ndtri(self.alpha / 2) / math.sqrt(t)))


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which hypotheses are rejected: the i-th smallest of k p-values at α/(k − i + 1), until one is not."""
    rejected = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda i: (p_values[i], i))
    for rank, index in enumerate(order):
        if p_values[index] > alpha / (len(order) - rank):
            break
        rejected[index] = True
    return rejected
