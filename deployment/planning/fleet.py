"""Enough replicas of one system to serve the whole traffic, before anything has a price; and what they must hold."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deployment.hardware import Accelerator, Offer
from deployment.model import Model
from deployment.planning.candidate import Constraint, Rejection, Shown, describe
from deployment.planning.own_agent import Measured
from deployment.planning.traffic import Workload
from deployment.serving import Estimate, Load, Serving

ALONE = "with next to no other request there: no number of replicas makes one faster"
CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Latencies:
    """What a replica's users see at the 95th percentile, seconds."""

    ttft: float
    tpot: float
    e2e: float
    """Of an answer of the 95th percentile's length."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a rejection is about: a model on an accelerator, served in one way."""

    model: str
    accelerator: str
    serving: Serving

    def reject(
        self, constraint: Constraint, value: Shown, limit: Shown, unit: str = "", words: str = "", floor: float = 0.0
    ) -> Rejection:
        """The rejection with the numbers."""
        return Rejection(self.name, self.model, self.accelerator, constraint, value, limit, unit, words, floor)

    @property
    def name(self) -> str:
        """`Qwen/Qwen3-8B fp8 on 2 × l4 TP2 (vllm)`."""
        return describe(self.model, self.accelerator or "any", self.serving)

    def missed(self, at: Latencies, workload: Workload, words: str = "", is_floor: bool = False) -> Rejection | None:
        """The first objective that `at` does not hold; None if it holds all. `is_floor`: nothing can be faster."""
        slo = workload.slo
        if not math.isfinite(at.e2e):
            return self.reject("load", "more requests arrive than are served", "a stable queue", "", words)
        held: tuple[tuple[Constraint, float, float | None], ...] = (
            ("ttft", at.ttft, slo.ttft_p95_ms and slo.ttft_p95_ms / 1e3),
            ("tpot", at.tpot, slo.tpot_p95_ms and slo.tpot_p95_ms / 1e3),
            ("e2e", at.e2e, slo.e2e_p95_s),
        )
        for constraint, value, limit in held:
            if limit is not None and value > limit:
                return self.reject(constraint, value, limit, "s", words, value if is_floor else 0.0)
        return None


@dataclass(frozen=True, slots=True)
class Fleet:
    """`replicas` of one system hold every objective at the peak; one fewer does not."""

    model: Model
    accelerator: Accelerator | None
    """None: processes on CPUs, each as it was measured (`worker`)."""
    serving: Serving
    load: Load
    """That reaches one replica at the peak."""
    replicas: int
    estimate: Estimate
    latencies: Latencies
    worker: Measured | None = None

    @property
    def hardware(self) -> str:
        """Name of the accelerator, or `cpu`."""
        return self.accelerator.name if self.accelerator else CPU

    @property
    def subject(self) -> Subject:
        """What a rejection of it names."""
        return Subject(self.model.name, self.hardware, self.serving)

    def instances(self, offer: Offer) -> int | None:
        """Instances of the offer that have to be rented whole; None if it has no room for a replica."""
        if self.worker is None:
            return instances_for(self.serving, self.replicas, offer)
        room = min(offer.vcpus // self.worker.cores, offer.memory_bytes // self.worker.peak_bytes)
        return math.ceil(self.replicas / room) if room else None


def instances_for(serving: Serving, replicas: int, offer: Offer) -> int | None:
    """Instances of the offer for `replicas`; None if they cannot be laid out on any number of them.

    Tensor parallelism and attention data parallelism stay inside an instance; stages of a pipeline may be on several,
    as long as they fill each. A marketplace's machine is let once.
    """
    count, stage = offer.count, serving.tp * serving.dp
    if count < stage:
        return None
    if count >= serving.accelerators:
        number = math.ceil(replicas / (count // serving.accelerators))
    elif serving.accelerators % count == 0 and count % stage == 0:
        number = replicas * serving.accelerators // count
    else:
        return None
    return None if offer.marketplace and number > 1 else number


def rented(serving: Serving, replicas: int, offers: Sequence[Offer]) -> tuple[Offer, int, float] | None:
    """`cheapest_of` for so many replicas on accelerators."""
    return cheapest_of(offers, lambda offer: instances_for(serving, replicas, offer))


def no_room(subject: Subject, replicas: int, offers: Sequence[Offer]) -> Rejection:
    """The rejection of so many replicas that none of the offers holds."""
    serving = subject.serving
    if rented(serving, 1, offers):
        most = float(max(offer.count // serving.accelerators for offer in offers))
        words = "machines of a marketplace are let once each, and nothing else is on offer"
        return subject.reject("instance", float(replicas), most, "replicas at least", words)
    most = float(max(offer.count for offer in offers))
    words = "tensor parallelism needs the links inside one instance; stages have to fill theirs"
    return subject.reject("instance", float(serving.accelerators), most, f"{subject.accelerator} in one", words)


def cheapest_of(offers: Sequence[Offer], instances: Callable[[Offer], int | None]) -> tuple[Offer, int, float] | None:
    """(offer, instances, USD per hour) of the least that can be paid; None if no offer has room. Ties: the first."""
    best = None
    for offer in offers:
        number = instances(offer)
        if number is not None and (best is None or number * offer.price < best[2]):
            best = offer, number, number * offer.price
    return best
