"""The recommendation: what to rent, how to serve on it, what that costs and how sure it is, and why not otherwise.

    from deployment.planning.recommend import recommend
    from deployment.planning.request import Request
    plan = recommend(Request(use_case="chat", models=("Qwen/Qwen3-8B",), rank="cost"))
    print(plan.chosen.system, plan.chosen.cost_per_month)

Gates first, then the fleets that hold the objectives (`sweep.py`), then their cheapest offers, then the order. The
cheapest answer is the cheapest there is: `tests/deployment/test_planning_recommend.py` tries everything.
"""

from collections.abc import Sequence
from datetime import date

from deployment.counting import counted
from deployment.market.freshness import stale
from deployment.model import Model
from deployment.planning import processors
from deployment.planning.candidate import Candidate, Recommendation, Rejection
from deployment.planning.catalogue import Catalogue, catalogue
from deployment.planning.fleet import CPU, Fleet
from deployment.planning.gates import model_gate, score_of
from deployment.planning.nearest import kinds, nearest
from deployment.planning.options import Option, options
from deployment.planning.own_agent import RETENTION
from deployment.planning.pareto import front, ranked
from deployment.planning.pricing import Pricing
from deployment.planning.renting import contenders
from deployment.planning.request import Request
from deployment.planning.sweep import Memory, Sweep
from deployment.planning.traffic import Workload

ALTERNATIVES = 10
"""Other offers that are listed for the chosen system."""


def recommend(request: Request, given: Catalogue | None = None, memory: Memory | None = None) -> Recommendation:
    """Answer the request from the shipped catalogue, or from `given`.

    `memory` carries what was solved from one request to the next. Raises InputError for names that are not known and
    traffic that makes no sense; that nothing fits is an answer (`chosen` is None, `nearest` says what misses by how
    much).
    """
    workload = request.workload()
    source = given or catalogue(request)
    benchmark = common_benchmark(source.models, request, workload)
    pricing = Pricing(request, workload, benchmark, contenders(source.offers))
    choices: list[Option] = []
    rejections: list[Rejection] = []
    for one in options(request, workload, source, pricing.offers):
        if isinstance(one, Option):
            choices.append(one)
        else:
            rejections.append(one)
    sweep = Sweep(request, workload, pricing, memory or Memory())
    sweep.run(choices)
    for answer in _on_cpus(source, request, workload):
        if isinstance(answer, Fleet):
            sweep.add(answer)
        else:
            rejections.append(answer)
    return _answer(request, workload, source, sweep, [*rejections, *sweep.rejections])


def common_benchmark(models: Sequence[Model], request: Request, workload: Workload) -> str:
    """The score to compare by: of the use's benchmarks the one that most of the models have; empty: none has any.

    Scores of different benchmarks are not comparable, so all are compared by one, and a model without it has none.
    """
    if request.quality:
        return request.quality.benchmark
    allowed = [model for model in models if model_gate(model, request, workload) is None]
    have = {name: sum(score_of(m, name) is not None for m in allowed) for name in (*workload.benchmarks, RETENTION)}
    best = max(have, key=lambda name: have[name])
    return best if have[best] else ""


def _on_cpus(source: Catalogue, request: Request, workload: Workload) -> list[Fleet | Rejection]:
    """A forge's agent on CPUs, where it may be and they are on offer; where CPUs are named, other models rejected."""
    if source.agent is None and CPU in request.accelerators:
        words = "only a forge's agent runs on CPUs (give its run as the report)"
        return [Rejection(f"{m.name} on {CPU}", m.name, CPU, "engine", CPU, "a GPU", "", words) for m in source.models]
    if source.agent is None or CPU not in source.offers or model_gate(source.agent.model, request, workload):
        return []
    return [processors.solve(source.agent, workload, request.max_replicas)]


def _answer(
    request: Request,
    workload: Workload,
    source: Catalogue,
    sweep: Sweep,
    rejections: Sequence[Rejection],
) -> Recommendation:
    """Everything in order."""
    ordered = ranked([candidate for candidate, _ in sweep.solved], request.rank)
    chosen = ordered[0] if ordered else None
    fleet = next((fleet for candidate, fleet in sweep.solved if candidate is chosen), None)
    return Recommendation(
        request=request,
        workload=workload,
        chosen=chosen,
        candidates=ordered,
        pareto=front(ordered),
        rejections=tuple(rejections),
        nearest=() if chosen else nearest(rejections),
        alternatives=_alternatives(chosen, fleet, source, sweep.pricing),
        benchmark=sweep.pricing.benchmark,
        notes=(*_notes(request, ordered, sweep.pricing.benchmark, rejections), *_stale(chosen)),
    )


def _alternatives(
    chosen: Candidate | None, fleet: Fleet | None, source: Catalogue, pricing: Pricing
) -> tuple[Candidate, ...]:
    """The chosen system on the other offers that have room for it, cheapest first."""
    if chosen is None or fleet is None:
        return ()
    priced = (pricing.on(fleet, offer) for offer in source.offers[fleet.hardware] if offer is not chosen.offer)
    found = sorted((c for c in priced if c is not None), key=lambda c: c.cost_per_hour)
    return tuple(found[:ALTERNATIVES])


def _stale(chosen: Candidate | None) -> list[str]:
    """What is to be said of the age of the price that the answer rests on."""
    return stale(date.today().isoformat(), [chosen.offer]) if chosen else []


def _notes(
    request: Request, candidates: Sequence[Candidate], benchmark: str, rejections: Sequence[Rejection]
) -> tuple[str, ...]:
    """What a reader has to know of the whole answer."""
    notes = []
    floors = () if candidates else kinds((r for r in rejections if r.floor), 1)
    for kind in floors:
        (least,) = kind.nearest  # the limit is the same for all, so that the smallest miss is the lowest floor
        notes.append(
            f"the objective of {kind.constraint.upper()} is below the physical floor of "
            f"{counted(kind.count, 'system')}; the lowest floor of these is {least.floor:.4g} s ({least.candidate})"
        )
    if not benchmark:
        notes.append("no model here has a published score that says something of this use, so quality does not count")
    elif any(c.quality is None for c in candidates):
        notes.append(f"models without a published {benchmark} come last in quality and balance")
    outdone = sum(r.constraint == "outdone" for r in rejections)
    if outdone:
        which = "system was not solved" if outdone == 1 else "systems were not solved"
        notes.append(
            f"{outdone:,} {which}, as another one is cheaper, faster and at least as good for certain; `--exhaustive` "
            "solves all"
        )
    if request.traffic.rate is None:
        notes.append(
            f"traffic: {counted(request.traffic.users, 'user')} at {request.traffic.peak_factor:g} times the average; "
            "count your own requests a second and give them as the rate"
        )
    return tuple(notes)
