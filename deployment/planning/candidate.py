"""What a recommendation is made of: candidates that serve the traffic, rejections with the number, and the choice.

Plain facts for whoever shows them or makes manifests of them (`deployment/manifests`); nothing here computes physics.
"""

from dataclasses import dataclass, field
from typing import Literal

from deployment.hardware import Accelerator, Offer
from deployment.model import Model, Quality
from deployment.planning.digits import alike
from deployment.planning.request import Request
from deployment.planning.traffic import Workload
from deployment.serving import Estimate, Load, Serving

HOURS_PER_MONTH = 730.0
"""A year's hours / 12: what clouds bill as a month."""
Shown = float | str
"""A figure, or words where there is none."""
Constraint = Literal[
    "licence", "task", "context", "engine", "precision", "tensor parallel", "instance", "memory", "ttft", "tpot", "e2e",
    "load", "budget", "quality", "physics", "outdone",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to serve the whole traffic within its objectives: `replicas` times one engine on rented instances."""

    model: Model
    accelerator: Accelerator | None
    """None: on the instance's CPUs."""
    offer: Offer
    serving: Serving
    """Of one replica; `max_context` is the longest request that the traffic asks for."""
    load: Load
    """That reaches one replica at the peak."""
    replicas: int
    instances: int
    """Instances of `offer` that are rented; a whole one is paid for even where its last accelerators idle."""
    estimate: Estimate
    """Of one replica under `load`."""
    ttft_p95: float
    """Seconds at the 95th percentile, of prompts too: what the objective is compared with."""
    tpot_p95: float
    """Seconds."""
    e2e_p95: float
    """Seconds, for an answer of the 95th percentile's length."""
    cost_per_hour: float
    """USD, of all instances."""
    cost_per_million_tokens: float
    """USD per million output tokens at the average (not the peak) load."""
    quality: Quality | None = None
    """The published or measured score that candidates are compared by; None: there is none."""
    score: float = 0.0
    """The PRD's score, 0 to 100 (`deployment/planning/score.py`)."""
    score_terms: dict[str, float] = field(default_factory=dict)
    """Its terms, each 0 to 1, before their weights."""
    notes: tuple[str, ...] = ()

    @property
    def accelerators(self) -> int:
        """Accelerators in use, of all replicas."""
        return self.replicas * self.serving.accelerators if self.accelerator else 0

    @property
    def cost_per_month(self) -> float:
        """USD for 730 hours."""
        return self.cost_per_hour * HOURS_PER_MONTH

    @property
    def rented(self) -> str:
        """`2 × gcp g2-standard-24 us-central1 spot`."""
        offer = self.offer
        return f"{self.instances} × {offer.cloud} {offer.instance} {offer.region}{' spot' if offer.spot else ''}"

    @property
    def system(self) -> str:
        """`Qwen/Qwen3-8B fp8 on 2 × l4 (vllm)`."""
        return describe(self.model.name, self.accelerator.name if self.accelerator else "cpu", self.serving)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A candidate that cannot do it, with the first constraint that it fails and by how much."""

    candidate: str
    """`Qwen/Qwen3-32B stored on 1 × l4 (vllm)`."""
    model: str
    accelerator: str
    """Empty: rejected on every one."""
    constraint: Constraint
    value: Shown
    """What the candidate has, in `unit`."""
    limit: Shown
    """What was asked for."""
    unit: str
    """`GiB`, `s`, `tokens`, `USD/h`, …; empty for words."""
    explanation: str = ""
    """More in words, where the two figures do not say it."""
    floor: float = 0.0
    """Physical floor in `unit`, where the limit is below it; 0: it is not."""

    def __str__(self) -> str:
        value, limit = self._figures()
        if self.constraint == "outdone":  # it missed no limit: the other figure is that of who outdoes it
            costs = f"{value} {self.unit} at least, that one's {limit}"
            return f"{self.candidate}: no cheaper ({costs}) than {self.explanation}"
        text = f"{self.candidate}: {self.constraint} {value}"
        if limit:
            text += f" where {limit} is {'needed' if isinstance(self.limit, str) else 'the limit'}"
        return (f"{text} [{self.unit}]" if self.unit else text) + (f"; {self.explanation}" if self.explanation else "")

    def _figures(self) -> tuple[str, str]:
        """Value and limit, written alike where both are numbers."""
        if isinstance(self.value, str) or isinstance(self.limit, str):
            value, limit = (one if isinstance(one, str) else alike(one)[0] for one in (self.value, self.limit))
        else:
            value, limit = alike(self.value, self.limit)
        return value, limit


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer: the best candidate in the order that was asked for, all others, and what was rejected."""

    request: Request
    workload: Workload
    """The request's traffic and objectives with the use case filled in."""
    chosen: Candidate | None
    """None: nothing meets all constraints; `nearest` says what comes closest."""
    candidates: tuple[Candidate, ...]
    """All that meet the constraints, best first; one a system, on its cheapest offer."""
    pareto: tuple[Candidate, ...]
    """Those that no other beats in cost, latency and quality at once, cheapest first."""
    rejections: tuple[Rejection, ...]
    nearest: tuple[Rejection, ...] = ()
    """Nothing fits: the misses that are smallest relative to their limit, one a constraint, smallest first."""
    alternatives: tuple[Candidate, ...] = ()
    """The chosen system on other offers, cheapest first."""
    benchmark: str = ""
    """What quality was compared by; empty: no candidate has a score."""
    notes: tuple[str, ...] = ()


def describe(model: str, accelerator: str, serving: Serving) -> str:
    """A system in one line: model, precision, accelerators of one replica, engine."""
    shape = "".join(f" {name}{n}" for name, n in (("TP", serving.tp), ("PP", serving.pp), ("DP", serving.dp)) if n > 1)
    return f"{model} {serving.precision} on {serving.accelerators} × {accelerator}{shape} ({serving.engine})"
