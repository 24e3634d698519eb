"""Solve the systems that can matter, and none that cannot: branch and bound over cost, latency and quality.

Every `Option` has a floor: it cannot cost less, answer faster or score higher than that. In the order of the least
cost they are solved one after the other; an option whose floor is no better in any of the three than what a solved
candidate really does is outdone, and is rejected with both figures. So the cheapest, the fastest, the best and the
whole Pareto front come out as if all had been solved (`tests/deployment/test_planning_recommend.py` solves all), at a
fraction of the time. Below `EXHAUSTIVE` options all are solved, so that a short list is complete.

Prices change nothing in the physics: a system is solved once, then joined with offers.
"""

from collections.abc import Sequence
from dataclasses import replace

from deployment.planning.candidate import HOURS_PER_MONTH, Candidate, Rejection
from deployment.planning.fleet import Fleet, Latencies
from deployment.planning.gates import score_of
from deployment.planning.options import Option
from deployment.planning.pareto import quality_of
from deployment.planning.pricing import Pricing
from deployment.planning.request import Request
from deployment.planning.system import System
from deployment.planning.traffic import Workload

EXHAUSTIVE = 300
"""Options up to which all are solved."""
UNPHYSICAL = {
    "budget_per_month",
    "rank",
    "exhaustive",
    "weights",
    "clouds",
    "regions",
    "spot",
    "accelerators",
    "vendors",
    "models",
}
"""Settings that change which systems there are, or what they cost, but not how one performs."""


class Memory:
    """Systems that have been looked at, so that a what-if that changes only prices looks at none again."""

    def __init__(self) -> None:
        self._alone: dict[tuple[object, ...], Latencies | Rejection] = {}
        self._stable: dict[tuple[object, ...], int] = {}
        self._solved: dict[tuple[object, ...], Fleet | Rejection] = {}

    def alone(self, key: tuple[object, ...], system: System, most: int) -> Latencies | Rejection:
        """What one request sees with hardly anybody else there."""
        if key not in self._alone:
            self._alone[key] = system.alone(most)
        return self._alone[key]

    def stable(self, key: tuple[object, ...], system: System) -> int:
        """Replicas that there are at least."""
        if key not in self._stable:
            self._stable[key] = system.stable()
        return self._stable[key]

    def solve(self, key: tuple[object, ...], system: System, alone: Latencies, most: int) -> Fleet | Rejection:
        """The smallest fleet."""
        if key not in self._solved:
            self._solved[key] = system.solve(alone, most)
        return self._solved[key]


class Sweep:
    """One sweep: what it has solved, and what is the best so far."""

    def __init__(self, request: Request, workload: Workload, pricing: Pricing, memory: Memory) -> None:
        self.request, self.workload, self.pricing, self.memory = request, workload, pricing, memory
        self.solved: list[tuple[Candidate, Fleet]] = []
        self.rejections: list[Rejection] = []
        self._best: list[tuple[float, float, float, Candidate]] = []  # cost, E2E, −quality
        self._score = 0.0
        self._complete = False

    def run(self, choices: Sequence[Option]) -> None:
        """Look at every option, the one that may be the cheapest first."""
        self._complete = self.request.exhaustive or len(choices) <= EXHAUSTIVE
        physics = self.request.model_dump_json(exclude=UNPHYSICAL)
        for option in sorted(choices, key=lambda o: (o.least_cost, o.least_e2e)):
            answer = self._look(option, physics)
            if isinstance(answer, Fleet):
                self.add(answer)
            else:
                self.rejections.append(answer)

    def add(self, fleet: Fleet) -> None:
        """Price a fleet, and keep it as a candidate or reject it."""
        priced = self.pricing.price(fleet)
        if isinstance(priced, Rejection):
            self.rejections.append(priced)
            return
        # Beyond the budget it still outdoes what is dearer yet: so the nearest miss is found like the best.
        at = priced.cost_per_hour, priced.e2e_p95, -quality_of(priced.quality)
        if self._better(*at) is None:
            self._best.append((*at, priced))
        dear = self.pricing.over_budget(priced)
        if dear:
            self.rejections.append(dear)
            return
        self.solved.append((priced, fleet))
        self._score = max(self._score, priced.score)

    def _look(self, option: Option, physics: str) -> Fleet | Rejection:
        """Solve the option, unless its floor, or one request alone on the fewest replicas, is outdone already."""
        better = self._outdoes(option, Latencies(0.0, 0.0, option.least_e2e))
        if better is not None:
            return _outdone(option, option.least_e2e, better)
        parts = option.model, option.accelerator, option.serving
        system, key = System(*parts, self.workload, self.request.cautious), (physics, option.subject)
        alone = self.memory.alone(key, system, self.request.max_replicas)
        if isinstance(alone, Rejection):
            return alone
        cost = self.pricing.least_cost(option, self.memory.stable(key, system))
        if isinstance(cost, Rejection):
            return cost
        option = replace(option, least_cost=max(option.least_cost, cost))
        better = self._outdoes(option, alone)
        if better is not None:
            return _outdone(option, alone.e2e, better)
        return self.memory.solve(key, system, alone, self.request.max_replicas)

    def _outdoes(self, option: Option, at_best: Latencies) -> Candidate | None:
        """A candidate that is no worse in anything than the option can at best be, if that settles the order."""
        if self._complete:
            return None
        if (
            self.request.rank == "score"
            and self.pricing.best_score(option.model, at_best, option.least_cost) > self._score
        ):
            return None
        quality = -quality_of(score_of(option.model, self.pricing.benchmark))
        return self._better(option.least_cost, at_best.e2e, quality)

    def _better(self, cost: float, e2e: float, quality: float) -> Candidate | None:
        """A candidate that is no worse in anything."""
        for one in self._best:
            if one[0] <= cost and one[1] <= e2e and one[2] <= quality:
                return one[3]
        return None


def _outdone(option: Option, e2e: float, better: Candidate) -> Rejection:
    cost = option.least_cost * HOURS_PER_MONTH
    words = f"{better.system}, no faster (E2E {e2e:.4g} s at least, that one's {better.e2e_p95:.4g} s) and no better"
    return option.subject.reject("outdone", cost, better.cost_per_month, "USD a month", words)
