"""`MoneyConfig`: traffic, prices, people and horizon, as far as you know them.

What is left empty is taken from what was measured (tokens of a request, tokens a second) or from the teacher's own
price; where there is nothing either, it is unknown, and the figures that need it say so.
"""

from typing import Annotated, Literal

from pydantic import Field

from distillation.money.hosting import Machine
from distillation.money.uncertainty import UncertaintyConfig
from phases.strict import StrictModel


class PerToken(StrictModel):
    """A provider's price for each token."""

    kind: Literal["per_token"] = "per_token"
    """By the token."""
    usd_per_million_in: float | None = Field(default=None, ge=0)
    """Dollars for a million prompt tokens. Empty, all three: the price that the teacher's config leads to."""
    usd_per_million_cached: float | None = Field(default=None, ge=0)
    """Of prompt tokens from the provider's cache."""
    usd_per_million_out: float | None = Field(default=None, ge=0)
    """Dollars for a million written tokens."""


class Hosted(StrictModel):
    """A machine that is paid by the hour."""

    kind: Literal["hosted"] = "hosted"
    """By the hour of a machine."""
    machine: Machine = Machine()
    """Which, or what its hour costs."""
    tokens_per_s: float | None = Field(default=None, gt=0)
    """Written tokens a second when it is busy; empty: as measured."""
    prompt_tokens_per_s: float | None = Field(default=None, gt=0)
    """Read tokens a second; empty: as measured, or as slow as written ones."""
    utilisation: float = Field(default=0.5, gt=0, le=1)
    """Share of the paid time in which it is busy."""


Pricing = Annotated[PerToken | Hosted, Field(discriminator="kind")]


class MoneyConfig(StrictModel):
    """What distillation is to save."""

    requests_per_month: float | None = Field(default=None, ge=0)
    """Requests that the teacher answers today."""
    prompt_tokens: float | None = Field(default=None, ge=0)
    """Of a request, on average; empty: as measured."""
    completion_tokens: float | None = Field(default=None, ge=0)
    """Of an answer, on average; empty: as measured."""
    cached_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the prompt tokens that the teacher's provider charges as cached."""
    teacher: Pricing = PerToken()
    """How the teacher is paid."""
    student: Pricing = Hosted()
    """How the student is paid."""
    student_billing: Literal["by_use", "always_on"] = "by_use"
    """Whether a student's machines are paid only while they are needed, or whole machines day and night."""
    escalation_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the requests that the student sends on to the teacher."""
    usd_per_error: float | None = Field(default=None, ge=0)
    """What a wrong answer costs; 0 is a price."""
    fixed_usd_per_month: float = Field(default=0.0, ge=0)
    """What the student costs a month besides its machines: upkeep, nights of training, monitoring."""
    compute: Machine = Machine()
    """What trains and measures."""
    people_hours: float = Field(default=0.0, ge=0)
    """Hours that people have spent on it so far, in total."""
    usd_per_people_hour: float | None = Field(default=None, ge=0)
    """What one costs."""
    discount_rate_per_year: float = Field(default=0.1, ge=0, le=1)
    """Of money that comes later."""
    horizon_months: int = Field(default=12, ge=1, le=120)
    """How long the student is counted on."""
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    """How far the figures may be off."""
