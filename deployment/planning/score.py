"""The PRD's score, visible and adjustable: 40·task + 15·context + 15·latency + 15·VRAM + 10·licence + 5·margin.

Its problem is that it adds what does not trade: a model that does not fit at all loses only the 15 points of VRAM and
still scores up to 85, and a licence that forbids the use costs 10. So whether it fits, the licence, the context and
the objectives are hard gates here (`gates.py`, `fleet.py`), and the score only ranks what passes them. Two more: it
does not know quality beyond "is published for the task", and it knows cost only as the margin. Both are therefore
shown beside it, and the default order (`ranking.py`) does not use it. Every term is between 0 and 1:

task      1 if the model is published for the use's task
context   half at exactly the context that is needed, 1 from twice that: room to grow
latency   mean share of the objectives (TTFT, TPOT, E2E; those that there are) that is left over
VRAM      share of the KV pool that the traffic leaves free
licence   1 for one without conditions on use (`PERMISSIVE`), 0.5 for one with, 0 if unknown
margin    share of the budget that is left over; 0 without a budget, alike for all

The weights are a team's own: `forge recommend --request team.yaml` with `weights: {licence: 30}`.
"""

from collections.abc import Sequence

import pydantic

from deployment.model import Model
from deployment.planning.traffic import Workload
from phases.strict import StrictModel

OWN = "own"
"""Licence of what was made here: its user decides."""
PERMISSIVE = frozenset(
    {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "unlicense", "psf-2.0", OWN}
)


class Weights(StrictModel):
    """Points for each term; the defaults are the PRD's and add up to 100."""

    task: float = pydantic.Field(default=40, ge=0)
    """1 where the model is published for the task."""
    context: float = pydantic.Field(default=15, ge=0)
    """Room beyond the context that is needed."""
    latency: float = pydantic.Field(default=15, ge=0)
    """What is left of the objectives."""
    vram: float = pydantic.Field(default=15, ge=0)
    """What the traffic leaves of the KV pool."""
    licence: float = pydantic.Field(default=10, ge=0)
    """1 without conditions on use, half with."""
    margin: float = pydantic.Field(default=5, ge=0)
    """What is left of the budget."""

    def score(self, terms: dict[str, float]) -> float:
        """Weighted sum of `terms`, scaled such that all ones give 100 whatever the weights add up to."""
        weights = self.model_dump()
        total = sum(weights.values())
        return 100 * sum(weights[name] * value for name, value in terms.items()) / total if total else 0.0


def terms(model: Model, workload: Workload, latencies: Sequence[tuple[float, float]], free: float, margin: float
) -> dict[str, float]:  # fmt: skip
    """The six terms of a candidate that passed the gates. `latencies`: pairs of (value, objective), same unit each."""
    left = [1 - value / limit for value, limit in latencies]
    return {
        "task": float(workload.task in model.tasks),
        "context": min(1.0, model.context / (2 * workload.context)),
        "latency": max(0.0, sum(left) / len(left)) if left else 1.0,
        "vram": free,
        "licence": licence_term(model.licence),
        "margin": max(0.0, margin),
    }


def licence_term(licence: str) -> float:
    """1 without conditions on use, 0.5 with, 0 if unknown."""
    if licence.lower() in ("", "unknown", "other"):
        return 0.0
    return 1.0 if licence.lower() in PERMISSIVE else 0.5
