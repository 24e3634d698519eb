"""A fleet on an offer: instances, cost per hour and per million tokens, score, and what a reader has to know."""

from collections.abc import Sequence
from dataclasses import dataclass

from deployment.hardware import Offer
from deployment.model import Model
from deployment.physics.keys_values import bytes_per_sequence
from deployment.planning.candidate import HOURS_PER_MONTH, Candidate, Rejection
from deployment.planning.fleet import CPU, Fleet, Latencies, Subject, cheapest_of, no_room, rented
from deployment.planning.gates import score_of
from deployment.planning.options import Option
from deployment.planning.request import Request
from deployment.planning.score import terms
from deployment.planning.traffic import SECONDS_PER_HOUR, Workload

GIB = 2.0**30


@dataclass(frozen=True, slots=True)
class Pricing:
    """Makes candidates of fleets."""

    request: Request
    workload: Workload
    benchmark: str
    """What quality is compared by; empty: nothing."""
    offers: dict[str, list[Offer]]
    """Those that can be the cheapest, by accelerator."""

    def price(self, fleet: Fleet) -> Candidate | Rejection:
        """The fleet on the offer that makes it cheapest; a rejection where none has room for a replica."""
        offers = self.offers[fleet.hardware]
        found = cheapest_of(offers, fleet.instances)
        if found is None:
            return _no_room(fleet, offers)
        return self._candidate(fleet, *found)

    def least_cost(self, option: Option, replicas: int) -> float | Rejection:
        """USD per hour that so many replicas cost at least; a rejection where nothing on offer has room for them."""
        offers = self.offers[option.accelerator.name]
        found = rented(option.serving, replicas, offers)
        return no_room(option.subject, replicas, offers) if found is None else found[2]

    def over_budget(self, candidate: Candidate) -> Rejection | None:
        """The rejection of a candidate that costs more than the budget even on its cheapest offer."""
        budget = self.request.budget_per_month
        if budget is None or candidate.cost_per_month <= budget:
            return None
        words = f"{candidate.instances} × {candidate.offer.cloud} {candidate.offer.instance}, the cheapest for it"
        hardware = candidate.accelerator.name if candidate.accelerator else CPU
        subject = Subject(candidate.model.name, hardware, candidate.serving)
        return subject.reject("budget", candidate.cost_per_month, budget, "USD a month", words)

    def on(self, fleet: Fleet, offer: Offer) -> Candidate | None:
        """The same fleet on another offer; None if that has no room for a replica."""
        number = fleet.instances(offer)
        return None if number is None else self._candidate(fleet, offer, number, number * offer.price)

    def best_score(self, model: Model, at_best: Latencies, cost: float) -> float:
        """What the score can at most be with these latencies and this cost: an empty KV pool."""
        return self.request.weights.score(self._terms(model, at_best, cost, 1.0))

    def _candidate(self, fleet: Fleet, offer: Offer, number: int, cost: float) -> Candidate:
        """Everything about the fleet on that many instances."""
        latencies, workload = fleet.latencies, self.workload
        tokens_per_hour = workload.average_rate * workload.output.mean * SECONDS_PER_HOUR
        parts = self._terms(fleet.model, latencies, cost, _free(fleet, workload))
        return Candidate(
            model=fleet.model,
            accelerator=fleet.accelerator,
            offer=offer,
            serving=fleet.serving,
            load=fleet.load,
            replicas=fleet.replicas,
            instances=number,
            estimate=fleet.estimate,
            ttft_p95=latencies.ttft,
            tpot_p95=latencies.tpot,
            e2e_p95=latencies.e2e,
            cost_per_hour=cost,
            cost_per_million_tokens=cost / tokens_per_hour * 1e6,
            quality=score_of(fleet.model, self.benchmark),
            score=self.request.weights.score(parts),
            score_terms=parts,
            notes=_notes(fleet, offer, number),
        )

    def _terms(self, model: Model, at: Latencies, cost: float, free: float) -> dict[str, float]:
        """Of the PRD's score."""
        slo = self.workload.slo
        pairs = ((at.ttft * 1e3, slo.ttft_p95_ms), (at.tpot * 1e3, slo.tpot_p95_ms), (at.e2e, slo.e2e_p95_s))
        held = [(value, limit) for value, limit in pairs if limit is not None]
        budget = self.request.budget_per_month
        margin = 1 - cost * HOURS_PER_MONTH / budget if budget else 0.0
        return terms(model, self.workload, held, free, margin)


def _no_room(fleet: Fleet, offers: Sequence[Offer]) -> Rejection:
    if fleet.worker is None:
        return no_room(fleet.subject, fleet.replicas, offers)
    most = max(float(offer.memory_bytes) for offer in offers)
    words = "no instance on offer has room for a replica"
    return fleet.subject.reject("instance", fleet.worker.peak_bytes / GIB, most / GIB, "GiB of memory", words)


def _free(fleet: Fleet, workload: Workload) -> float:
    """Share of the KV pool that the sequences in flight leave free, each half way through its answer."""
    serving, estimate = fleet.serving, fleet.estimate
    tokens = workload.prompt.mean + workload.output.mean // 2
    each = bytes_per_sequence(fleet.model, tokens, serving.kv_bits, serving.tp) / serving.pp
    pool = estimate.memory.kv_pool
    return min(1.0, max(0.0, 1 - estimate.batch / serving.dp * each / pool)) if pool > 0 else 0.0


def _notes(fleet: Fleet, offer: Offer, number: int) -> tuple[str, ...]:
    """What a reader has to know of this candidate, after what the physics says."""
    notes = list(fleet.estimate.notes)
    idle = number * offer.count - fleet.replicas * fleet.serving.accelerators
    if fleet.accelerator and idle > 0:
        notes.append(f"{idle} of {number * offer.count} accelerators stay idle, paid for all the same")
    if fleet.replicas == 1:
        notes.append("one replica: while it restarts, nothing answers")
    if offer.marketplace:
        notes.append("a marketplace's machine, let once: somebody else may have it by now")
    if offer.spot:
        notes.append("spot: the instance can be taken away at any time")
    if fleet.accelerator and fleet.accelerator.half == "fp16":
        notes.append(f"in fp16: the {fleet.accelerator.name} has no bf16, and the engine turns the weights as it loads")
    if fleet.serving.precision not in ("stored", "bf16"):
        notes.append(f"{fleet.serving.precision}: the published scores are of the checkpoint as published; measure it")
    return tuple(notes)
