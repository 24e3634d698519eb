"""Traffic and objectives: how many requests, how long, and what latency their users will stand.

What a user writes (`Traffic`, `Lengths`, `Slo`; the use cases in `use_cases.yaml` are made of the same), and what the
planner works with: a `Workload` in which nothing is left open. Arrivals are taken as Poisson, so that a rate is all
that a queue needs to know.
"""

from typing import Self

import pydantic

from phases.strict import StrictModel

SECONDS_PER_HOUR = 3600.0


class Lengths(StrictModel):
    """How many tokens: a mean for throughput, a 95th percentile for what has to be promised."""

    mean: int = pydantic.Field(ge=1, le=10_000_000)
    """Tokens."""
    p95: int = pydantic.Field(ge=1, le=10_000_000)
    """Tokens that 95 % of the requests do not exceed."""

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Self:
        """A 95th percentile below the mean is a slip: both figures were meant otherwise."""
        if self.p95 < self.mean:
            raise ValueError(f"p95 = {self.p95} is below mean = {self.mean}; give the 95th percentile")
        return self


class Slo(StrictModel):
    """Objectives at the 95th percentile; what is left out is not promised."""

    ttft_p95_ms: float | None = pydantic.Field(default=None, gt=0, le=1e9)
    """Time to the first token, queueing included."""
    tpot_p95_ms: float | None = pydantic.Field(default=None, gt=0, le=1e9)
    """Time per output token after the first: (end-to-end − TTFT) / (tokens − 1)."""
    e2e_p95_s: float | None = pydantic.Field(default=None, gt=0, le=1e9)
    """The whole answer, of the 95th percentile's length."""

    def over(self, defaults: "Slo") -> "Slo":
        """These objectives, and `defaults` where none was given."""
        return Slo.model_validate(defaults.model_dump() | self.model_dump(exclude_unset=True))


class Traffic(StrictModel):
    """How much comes: users and what each asks, or the peak's rate itself."""

    users: int = pydantic.Field(default=100, ge=1, le=10_000_000_000)
    """People (or programs) who use it in the busy hours."""
    requests_per_user_hour: float | None = pydantic.Field(default=None, gt=0, le=1e6)
    """Each one's; left out: the use case's."""
    rate: float | None = pydantic.Field(default=None, gt=0, le=1e6)
    """Requests per second at the peak; given, `users` does not count."""
    peak_factor: float = pydantic.Field(default=3.0, ge=1, le=1000)
    """Peak over average. 3 is an assumption: working hours are about a third of the day."""

    def peak_rate(self, requests_per_user_hour: float) -> float:
        """Requests per second that have to be served within the objectives."""
        if self.rate is not None:
            return self.rate
        each = self.requests_per_user_hour or requests_per_user_hour
        return self.users * each / SECONDS_PER_HOUR * self.peak_factor


class Workload(StrictModel):
    """A request's traffic with the use case filled in."""

    use_case: str
    task: str
    """What the models are asked to be good at, in the atlas's words."""
    prompt: Lengths
    output: Lengths
    context: int
    """Tokens of the longest request that is admitted."""
    prefix_cached: float
    """Share of the prompt that the prefix cache holds."""
    slo: Slo
    peak_rate: float
    """Requests per second."""
    average_rate: float
    """Requests per second, day and night."""
    benchmarks: tuple[str, ...]
    """Scores that tell quality at this use, the most telling first."""
