"""What a search may change of a strategy and its training, and how a proposal becomes both again."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from distillation.training.strategy_config import Incremental, Logits, MultiTeacher, Strategy
from phases.strict import StrictModel
from phases.training.config import TrainingConfig

RUNGS = 3
"""Looks at the validation records during a trial."""
Parameters = dict[str, Any]


class SearchConfig(StrictModel):
    """A search over how the student learns."""

    trials: int = Field(8, ge=2)
    """Trainings, the given settings among them."""
    seconds: float | None = Field(None, gt=0)
    """No trial begins after so long; empty: no limit."""
    steps: int = Field(100, ge=RUNGS)
    """Steps of a trial."""
    rate: tuple[float, float] = (0.3, 3.0)
    """Factors on both learning rates, from and to."""
    alpha: tuple[float, float] = (0.1, 1.0)
    """The teacher's share, from and to; for strategies that have one."""
    tau: tuple[float, ...] = (1.0, 2.0)
    """Temperatures that are tried; each needs its own reading of the rows by the teacher."""
    loss: tuple[Literal["forward", "jsd"], ...] = ("forward",)
    """Divergences that are tried by `logits`; `jsd` keeps the teacher in memory."""


@dataclass(frozen=True)
class Space:
    """What is searched: each with its limits, and with the value that the config gives."""

    given: Parameters
    limits: dict[str, tuple[float, float]]
    choices: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, strategy: Strategy, config: SearchConfig) -> "Space":
        """Only what the strategy has; limits are widened to hold what is given."""
        given: Parameters = {"rate": 1.0}
        limits: dict[str, tuple[float, float]] = {"rate": config.rate}
        choices: dict[str, tuple[Any, ...]] = {}
        if isinstance(strategy, Logits | MultiTeacher | Incremental):
            given |= {"alpha": strategy.alpha, "tau": strategy.cache.tau}
            limits["alpha"] = config.alpha
            choices["tau"] = config.tau
        if isinstance(strategy, Logits):
            given["loss"] = strategy.loss
            choices["loss"] = config.loss
        limits = {name: (min(low, given[name]), max(high, given[name])) for name, (low, high) in limits.items()}
        choices = {name: tuple(dict.fromkeys((given[name], *values))) for name, values in choices.items()}
        return cls(given, limits, choices)

    def distributions(self) -> dict[str, Any]:
        """For optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        found: dict[str, Any] = {n: FloatDistribution(*limits, log=n == "rate") for n, limits in self.limits.items()}
        return found | {name: CategoricalDistribution(values) for name, values in self.choices.items()}


def apply(strategy: Strategy, training: TrainingConfig, parameters: Parameters) -> tuple[Strategy, TrainingConfig]:
    """The strategy and the training with a proposal's values."""
    rates = ("learning_rate", "matrix_learning_rate")
    faster = training.model_copy(update={name: getattr(training, name) * parameters["rate"] for name in rates})
    if not isinstance(strategy, Logits | MultiTeacher | Incremental):
        return strategy, faster
    changed: Parameters = {name: parameters[name] for name in ("alpha", "loss") if name in parameters}
    changed["cache"] = strategy.cache.model_copy(update={"tau": parameters["tau"]})
    return type(strategy).model_validate({**strategy.model_dump(), **_plain(changed)}), faster


def _plain(values: Parameters) -> Parameters:
    return {name: value.model_dump() if isinstance(value, StrictModel) else value for name, value in values.items()}
