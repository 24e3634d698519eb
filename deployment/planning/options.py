"""Every system that a request allows: models × accelerators × TP × PP × precision × engine, through the free gates.

What fails a gate that costs nothing is rejected here: licence, context, engine, precision, parallelism, instances,
weights that alone exceed the memory, objectives below the physical floor. What is left is an `Option` with the best
that it could be.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from deployment.hardware import Accelerator, Offer
from deployment.model import Model
from deployment.physics.precision import weight_format
from deployment.planning.candidate import Rejection
from deployment.planning.catalogue import Catalogue
from deployment.planning.fleet import Latencies, Subject, no_room, rented
from deployment.planning.floors import Demand, Overhead, demand, overhead, replicas_floor, tpot_floor, ttft_floor
from deployment.planning.gates import model_gate, precisions, undivided
from deployment.planning.hardware_gates import engine_gate
from deployment.planning.request import Request
from deployment.planning.traffic import Workload
from deployment.serving import Precision, Serving

GIB = 2.0**30
FLOOR = "below the physical floor, bytes / bandwidth and operations / peak: no engine can be faster"


@dataclass(frozen=True, slots=True)
class Option:
    """A system worth solving, and what it can at best be."""

    model: Model
    accelerator: Accelerator
    serving: Serving
    least_e2e: float
    """Seconds that an answer of the 95th percentile's length takes at least, by the fitted physics."""
    least_cost: float
    """USD per hour that the fleet costs at least."""

    @property
    def subject(self) -> Subject:
        """What a rejection of it names."""
        return Subject(self.model.name, self.accelerator.name, self.serving)


def options(
    request: Request, workload: Workload, catalogue: Catalogue, offers: dict[str, list[Offer]]
) -> Iterator[Option | Rejection]:
    """All of them in the catalogue's order. `offers`: those that can be the cheapest, by accelerator.

    What fails on every accelerator is rejected once.
    """
    for model in catalogue.models:
        failed = model_gate(model, request, workload)
        if failed:
            yield failed
            continue
        kept, others = precisions(model, request)
        yield from others
        for serving in _servings(request, workload, kept) if catalogue.accelerators else ():
            problem = undivided(model, serving.tp)
            if problem:
                yield Subject(model.name, "", serving).reject(
                    "tensor parallel", float(serving.tp), problem[1], problem[0], "TP has to divide it"
                )
                continue
            asked = demand(model, serving, workload)
            extra = overhead(model, serving, workload, catalogue.accelerators.values())
            kept_as = weight_format(model, serving)
            for accelerator in catalogue.accelerators.values():
                subject = Subject(model.name, accelerator.name, serving)
                yield engine_gate(subject, model, kept_as, accelerator) or _option(
                    subject, model, accelerator, asked, extra, workload, offers[accelerator.name]
                )


def _option(
    subject: Subject,
    model: Model,
    accelerator: Accelerator,
    asked: Demand,
    extra: Overhead,
    workload: Workload,
    offers: Sequence[Offer],
) -> Option | Rejection:
    """One system through the gates of its size and its floors on the accelerator."""
    serving = subject.serving
    if asked.weights > accelerator.memory_bytes:
        value, limit = asked.weights / GIB, accelerator.memory_bytes / GIB
        return subject.reject("memory", value, limit, f"GiB of each {accelerator.name}", "the weights alone")
    ttft, tpot = ttft_floor(asked, accelerator), tpot_floor(asked, accelerator)
    floor = Latencies(ttft, tpot, ttft + (workload.output.p95 - 1) * tpot)
    failed = subject.missed(floor, workload, FLOOR, is_floor=True)
    if failed:
        return failed
    replicas = replicas_floor(asked, accelerator, workload.peak_rate)
    found = rented(serving, replicas, offers)
    if found is None:
        return no_room(subject, replicas, offers)
    e2e = extra.e2e(asked, accelerator, workload.output.p95)
    return Option(model, accelerator, serving, e2e, found[2])


def _servings(request: Request, workload: Workload, kept: Sequence[Precision]) -> Iterator[Serving]:
    """All ways of serving one replica that the request allows."""
    shapes = product(request.engines, kept, request.tensor_parallel, request.pipeline_parallel)
    for engine, precision, tp, pp in shapes:
        yield Serving(
            engine=engine,
            precision=precision,
            kv_bits=request.kv_bits,
            tp=tp,
            pp=pp,
            max_context=workload.context,
            prefix_cached=workload.prefix_cached,
        )
