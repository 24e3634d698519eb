"""One measured outcome of a deployment beside what had been predicted for it."""

import math
from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from phases.strict import StrictModel

Metric = Literal["ttft", "tpot", "cost"]
METRICS: tuple[Metric, ...] = ("ttft", "tpot", "cost")
UNITS = {"ttft": "s", "tpot": "s", "cost": "per million output tokens"}


class Outcome(StrictModel):
    """A system, its load, and predicted and observed figures. At least one figure has both."""

    model: str = Field(min_length=1, max_length=400)
    accelerator: str = Field(min_length=1, max_length=100)
    engine: str = Field(min_length=1, max_length=40)
    version: str = Field(default="", max_length=40)
    precision: str = Field(default="stored", max_length=20)
    tp: int = Field(default=1, ge=1)
    prompt_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    concurrency: float | None = Field(default=None, gt=0)
    """Requests in flight, or …"""
    rate: float | None = Field(default=None, gt=0)
    """… requests per second."""
    predicted_ttft: float | None = Field(default=None, gt=0)
    """Seconds, mean."""
    observed_ttft: float | None = Field(default=None, gt=0)
    predicted_tpot: float | None = Field(default=None, gt=0)
    """Seconds, mean of (end-to-end − TTFT) / (tokens − 1)."""
    observed_tpot: float | None = Field(default=None, gt=0)
    predicted_cost: float | None = Field(default=None, gt=0)
    """Per million output tokens."""
    observed_cost: float | None = Field(default=None, gt=0)
    observed_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    """When it was measured; without a zone it is UTC."""
    source: str = Field(default="", max_length=400)
    """File or service that measured it."""
    measurement: str = Field(default="", max_length=64)
    """SHA-256 of the file whose loads belong together; empty: a measurement of its own."""
    corrected_by: int = Field(default=0, ge=0)
    """Observations of this very system that the prediction was corrected by; 0: it was not calibrated."""

    @field_validator("observed_at")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not any(self.log_ratio(metric) is not None for metric in METRICS):
            raise ValueError("no figure is both predicted and observed; give at least one of ttft, tpot, cost")
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("give either concurrency or rate")
        return self

    @property
    def system(self) -> str:
        """What predictions are corrected for: model, accelerator and engine."""
        return f"{self.model} on {self.accelerator} ({self.engine})"

    def log_ratio(self, metric: Metric) -> float | None:
        """ln(observed / predicted): 0 is a perfect prediction, 0.1 a tenth too low; None: not both are known."""
        predicted, observed = getattr(self, f"predicted_{metric}"), getattr(self, f"observed_{metric}")
        return None if predicted is None or observed is None else math.log(observed / predicted)
