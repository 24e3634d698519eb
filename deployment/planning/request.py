"""What a user asks the planner: a use case and traffic, what to choose from, and what must not be exceeded.

    Request.parse({"use_case": "rag", "traffic": {"users": 500}, "budget_per_month": 4000}, "request")

Everything has a default; a use case fills in lengths and objectives (`use_cases.yaml`).
"""

from typing import Literal

import pydantic

from deployment.planning.score import Weights
from deployment.planning.traffic import Lengths, Slo, Traffic, Workload
from deployment.planning.use_cases import use_case
from deployment.serving import Engine, Precision
from phases.errors import InputError
from phases.strict import StrictModel

Rank = Literal["cost", "latency", "quality", "balance", "score"]
Degree = Literal[1, 2, 3, 4, 6, 8, 16, 32]


class QualityFloor(StrictModel):
    """A published score that a model must reach; one without that score is rejected, not guessed."""

    benchmark: str
    """Name of the score, e.g. `MMLU-Pro`."""
    at_least: float = pydantic.Field(gt=0, le=100)
    """In percent."""


class Request(StrictModel):
    """One question to the planner. Unset lengths and objectives are the use case's."""

    use_case: str = "chat"
    """A name in `use_cases.yaml`."""
    traffic: Traffic = Traffic()
    """How many ask, and how often."""
    prompt: Lengths | None = None
    """Tokens of a prompt; unset: the use case's."""
    output: Lengths | None = None
    """Tokens of an answer; unset: the use case's."""
    context: int | None = pydantic.Field(default=None, ge=2, le=100_000_000)
    """Tokens of the longest request; unset: the use case's, or what your own lengths need."""
    prefix_cached: float | None = pydantic.Field(default=None, ge=0, lt=1)
    """Share of a prompt that the prefix cache holds; unset: the use case's."""
    slo: Slo = Slo()
    """Objectives; what is unset is the use case's."""

    models: tuple[str, ...] = ()
    """Names in the atlas; none: all of it."""
    task: str | None = None
    """Only models that are published for it."""
    family: str | None = None
    """Only this architecture, the `model_type` of its config.json."""
    max_parameters: float | None = pydantic.Field(default=None, gt=0)
    """Only models of at most so many parameters."""
    licences: tuple[str, ...] = ()
    """Hub ids of licences that are acceptable, or `permissive`; none: any, even unknown."""
    quality: QualityFloor | None = None
    """A published score that has to be reached."""

    accelerators: tuple[str, ...] = ()
    """None: all that the offers have."""
    vendors: tuple[str, ...] = ()
    """Of the accelerators: `nvidia`, `amd`, …; none: any that the engine runs on."""
    clouds: tuple[str, ...] = ()
    """None: all."""
    regions: tuple[str, ...] = ()
    """None: all."""
    spot: bool = False
    """Also offers that can be taken away at any time."""
    budget_per_month: float | None = pydantic.Field(default=None, gt=0)
    """USD for 730 hours."""
    max_replicas: int = pydantic.Field(default=256, ge=1, le=100_000)
    """At most so many."""

    engines: tuple[Engine, ...] = ("vllm",)
    """That may serve it."""
    precisions: tuple[Precision, ...] = ("stored", "fp8")
    """Of the weights; `fp8` where the engine can quantise while it loads a 16-bit checkpoint."""
    kv_bits: Literal[8, 16] = 16
    """Of keys and values."""
    tensor_parallel: tuple[Degree, ...] = (1, 2, 4, 8)
    """Degrees to try."""
    pipeline_parallel: tuple[Degree, ...] = (1,)
    """Degrees to try."""
    cautious: bool = False
    """Compare the upper end of the 80 % interval with the objectives, not the expected value."""
    rank: Rank = "balance"
    """What comes first; `balance`: twice the price is as bad as twice the time, and as good as half the mistakes."""
    exhaustive: bool = False
    """Solve every system, even those that another one beats for certain."""
    weights: Weights = Weights()
    """Of the PRD's score, a team's own."""

    def workload(self) -> Workload:
        """The traffic with the use case filled in; InputError where lengths and context contradict each other."""
        case = use_case(self.use_case)
        prompt, output = self.prompt or case.prompt, self.output or case.output
        longest = prompt.p95 + output.p95
        own = self.prompt or self.output
        context = self.context or (max(case.context, longest) if own else case.context)
        if context < longest:
            raise InputError(
                f"context {context} does not hold a prompt of {prompt.p95} and an answer of {output.p95} tokens (the "
                f"95th percentiles); give a context of at least {longest} or shorter lengths"
            )
        peak = self.traffic.peak_rate(case.requests_per_user_hour)
        return Workload(
            use_case=self.use_case,
            task=self.task or case.task,
            prompt=prompt,
            output=output,
            context=context,
            prefix_cached=case.prefix_cached if self.prefix_cached is None else self.prefix_cached,
            slo=self.slo.over(case.slo),
            peak_rate=peak,
            average_rate=peak / self.traffic.peak_factor,
            benchmarks=case.benchmarks,
        )
