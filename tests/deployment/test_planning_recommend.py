"""The recommendation against trying everything, and what it says where nothing fits."""

from itertools import product

import pytest

from deployment.atlas import catalogue as atlas
from deployment.market import accelerators as hardware
from deployment.market.offers import offers as market
from deployment.physics.estimate import estimate
from deployment.physics.memory import memory_plan
from deployment.planning import sweep
from deployment.planning.catalogue import Catalogue, catalogue
from deployment.planning.options import Option, options
from deployment.planning.recommend import recommend
from deployment.planning.renting import by_accelerator, contenders
from deployment.planning.request import Request
from deployment.planning.sweep import Memory
from deployment.planning.system import System
from deployment.planning.what_if import changed, rows, what_if
from deployment.serving import Load, Serving
from phases.errors import InputError

MODELS = ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B", "Qwen/Qwen3-32B", "openai/gpt-oss-20b")
CARDS = ("l4", "a100-80gb-sxm", "h100-sxm")
EASY = {"use_case": "rag", "traffic": {"rate": 3.0}, "slo": {"ttft_p95_ms": 3000, "tpot_p95_ms": 100}}


def asked(**settings: object) -> Request:
    return Request.parse({**EASY, "models": MODELS, "accelerators": CARDS, **settings}, "request")


def tried(request: Request, name: str, card: str, precision: str, tp: int) -> tuple[int, float, float] | None:
    """(replicas, USD per hour, E2E) by counting up from one replica and asking the price of every offer."""
    model, accelerator, workload = atlas.model(name), hardware.accelerator(card), request.workload()
    if precision == "fp8" and (model.stored_bits < 15 or "fp8" not in accelerator.flops):
        return None
    if any(g.heads % tp or (g.kv_heads % tp and tp % g.kv_heads) for g in model.layers):
        return None
    serving = Serving(precision=precision, tp=tp, max_context=workload.context, prefix_cached=workload.prefix_cached)
    if not memory_plan(model, accelerator, serving).fits:
        return None

    def ttft_alone(prompt):
        light = Load(prompt, workload.output.mean, rate=1e-9)
        return estimate(model, accelerator, serving, light).ttft.value

    longer = max(0.0, ttft_alone(workload.prompt.p95) - ttft_alone(workload.prompt.mean))
    for replicas in range(1, 65):
        load = Load(workload.prompt.mean, workload.output.mean, rate=workload.peak_rate / replicas)
        found = estimate(model, accelerator, serving, load)
        ttft, tpot = found.ttft_percentiles[95].value + longer, found.tpot_percentiles[95].value
        if ttft <= workload.slo.ttft_p95_ms / 1e3 and tpot <= workload.slo.tpot_p95_ms / 1e3:
            prices = [
                -(-replicas // (offer.count // tp)) * offer.price
                for offer in market(accelerators=[card], spot=False)
                if offer.count >= tp and (not offer.marketplace or replicas <= offer.count // tp)
            ]
            return (replicas, min(prices), ttft + (workload.output.p95 - 1) * tpot) if prices else None
    return None


@pytest.mark.parametrize("rate", [0.2, 3.0, 25.0])
def test_the_cheapest_and_the_fastest_are_those_of_trying_everything(rate):
    request = asked(traffic={"rate": rate}, tensor_parallel=[1, 2, 4], max_replicas=64)
    systems = product(MODELS, CARDS, ("stored", "fp8"), (1, 2, 4))
    all_tried = {system: found for system in systems if (found := tried(request, *system))}
    answer = recommend(changed(request, "rank=cost"))
    assert answer.chosen.cost_per_hour == pytest.approx(min(cost for _, cost, _ in all_tried.values()))
    found = {(c.model.name, c.accelerator.name, c.serving.precision, c.serving.tp): c for c in answer.candidates}
    assert {key: (c.replicas, pytest.approx(c.cost_per_hour)) for key, c in found.items()} == {
        key: (replicas, cost) for key, (replicas, cost, _) in all_tried.items()
    }
    fastest = recommend(changed(request, "rank=latency")).chosen
    assert fastest.e2e_p95 == pytest.approx(min(e2e for _, _, e2e in all_tried.values()))


@pytest.mark.parametrize("rank", ["cost", "latency", "quality", "balance", "score"])
def test_what_is_not_solved_is_not_missed(monkeypatch, rank):
    """Branch and bound finds the same best, and the same front, as solving every system."""
    settings = {"models": [], "task": "code", "family": "qwen3", "accelerators": [*CARDS, "l40s", "mi300x"]}
    request = asked(**settings, rank=rank)
    everything = recommend(changed(request, "exhaustive=true"))
    monkeypatch.setattr(sweep, "EXHAUSTIVE", 0)
    bounded = recommend(request)
    outdone = [r for r in bounded.rejections if r.constraint == "outdone"]
    assert len(outdone) > 20
    assert any(
        note.startswith(f"{len(outdone)} systems were not solved") and "--exhaustive" in note for note in bounded.notes
    )
    assert len(bounded.candidates) < len(everything.candidates)

    def figures(candidates):
        return [(c.cost_per_hour, c.e2e_p95, c.quality) for c in candidates]

    assert figures(bounded.pareto) == figures(everything.pareto)
    if rank == "score":
        assert bounded.chosen.score == everything.chosen.score
    else:
        assert figures([bounded.chosen]) == figures([everything.chosen])


@pytest.mark.parametrize("use_case", ["chat", "code_agent", "batch"])
def test_nothing_is_cheaper_or_faster_than_its_bounds(use_case):
    """Large tables beside few active experts, and caches beside next to no sequence, are where bounds go wrong."""
    names = ("openai/gpt-oss-20b", "Qwen/Qwen3-0.6B", "google/gemma-3-4b-it", "Qwen/Qwen3-30B-A3B")
    cards = ("b200-sxm", "b300-sxm", "rtx-5090", "rtx-pro-6000", "mi300x", "l4")
    request = Request.parse({"use_case": use_case, "models": names, "accelerators": cards, "exhaustive": True}, "r")
    workload, source = request.workload(), catalogue(request)
    given = options(request, workload, source, contenders(source.offers))
    bounds = {one.subject.name: one for one in given if isinstance(one, Option)}
    found = recommend(request).candidates
    assert len(found) > 10
    for one in found:
        system = System(one.model, one.accelerator, one.serving, workload)
        assert one.e2e_p95 >= bounds[one.system].least_e2e * (1 - 1e-9)
        assert one.e2e_p95 >= system.alone(request.max_replicas).e2e * (1 - 1e-9)
        assert one.cost_per_hour >= bounds[one.system].least_cost * (1 - 1e-9)
        assert one.replicas >= system.stable()


def test_every_candidate_holds_every_objective_and_nothing_is_lost():
    request = asked()
    answer = recommend(request)
    slo = answer.workload.slo
    assert answer.candidates
    for one in answer.candidates:
        assert one.ttft_p95 * 1e3 <= slo.ttft_p95_ms and one.tpot_p95 * 1e3 <= slo.tpot_p95_ms
        assert one.estimate.memory.fits
        assert one.instances * one.offer.count >= one.replicas * one.serving.accelerators
        assert one.load.rate * one.replicas == pytest.approx(answer.workload.peak_rate)
        assert 0 <= one.score <= 100
    assert all(r.constraint and r.value != r.limit for r in answer.rejections)
    systems = {c.system for c in answer.candidates} | {r.candidate for r in answer.rejections}
    assert len(systems) == len(answer.candidates) + len(answer.rejections)


def test_more_users_never_cost_less_and_caution_neither():
    request = asked(rank="cost", models=["Qwen/Qwen3-8B"])
    memory = Memory()
    costs = [
        recommend(changed(request, f"traffic.rate={rate}"), memory=memory).chosen.cost_per_hour
        for rate in (0.1, 1, 5, 20, 80)
    ]
    assert costs == sorted(costs)
    careful = recommend(changed(request, "cautious=true"))
    assert careful.chosen is None or careful.chosen.cost_per_hour >= recommend(request).chosen.cost_per_hour


def test_alternatives_are_the_same_system_on_dearer_offers():
    answer = recommend(asked(rank="cost"))
    assert answer.alternatives
    for one in answer.alternatives:
        assert one.system == answer.chosen.system and one.replicas == answer.chosen.replicas
        assert one.cost_per_hour >= answer.chosen.cost_per_hour


def test_a_budget_that_nothing_fits_names_the_nearest_miss():
    cheapest = recommend(asked(rank="cost")).chosen
    answer = recommend(asked(budget_per_month=cheapest.cost_per_month * 0.9))
    assert answer.chosen is None and not answer.candidates
    miss = next(r for r in answer.nearest if r.constraint == "budget")
    assert miss.value == pytest.approx(cheapest.cost_per_month)
    assert miss.candidate == cheapest.system
    assert recommend(asked(budget_per_month=cheapest.cost_per_month * 1.001)).chosen is not None


def test_an_objective_below_the_floor_says_the_floor():
    answer = recommend(asked(models=["Qwen/Qwen3-32B"], slo={"tpot_p95_ms": 1}))
    assert answer.chosen is None
    floors = [r for r in answer.rejections if r.constraint == "tpot"]
    assert floors and all(r.floor == r.value > 0.001 for r in floors)
    lowest = min(r.floor for r in floors)
    assert f"{len(floors)} systems; the lowest floor of these is {lowest:.4g} s" in " ".join(answer.notes)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"accelerators": ["h10"]}, "h100"),
        ({"models": ["Qwen/Qwen3-8"]}, "Qwen/Qwen3-8B"),
        ({"clouds": ["awz"]}, "aws"),
        ({"regions": ["us-est-1"]}, "us-east-1"),
        ({"use_case": "chart"}, "chat"),
    ],
)
def test_names_that_are_not_known_get_the_nearest(settings, said):
    with pytest.raises(InputError, match=said):
        recommend(asked(**settings))


def test_tensor_parallelism_beyond_the_instances_is_rejected_with_both_numbers():
    request = asked(models=["Qwen/Qwen3-8B"], accelerators=["l4"], tensor_parallel=[8])
    single = [offer for offer in market(accelerators=["l4"], spot=False) if offer.count == 1]
    given = Catalogue((atlas.model("Qwen/Qwen3-8B"),), by_accelerator(single), {"l4": hardware.accelerator("l4")})
    answer = recommend(request, given)
    assert answer.chosen is None
    assert {(r.constraint, r.value, r.limit) for r in answer.rejections if r.constraint == "instance"} >= {
        ("instance", 8.0, 1.0)
    }


def test_what_if_side_by_side_solves_nothing_twice(monkeypatch):
    solved = []
    looked = System.alone
    monkeypatch.setattr(System, "alone", lambda system, most: solved.append(system.subject) or looked(system, most))
    alternatives = what_if(asked(rank="cost"), ["budget_per_month=1e6 rank=latency", "accelerators=l4", "spot=true"])
    assert len(solved) == len(set(solved))
    table = dict(rows(alternatives))
    assert len(table["USD a month"]) == 4
    only = alternatives[2].recommendation
    assert {c.accelerator.name for c in only.candidates} == {"l4"}
    assert alternatives[3].recommendation.chosen.cost_per_hour <= alternatives[0].recommendation.chosen.cost_per_hour


def test_one_change_may_be_a_text():
    names = [one.name for one in what_if(asked(models=["Qwen/Qwen3-8B"], accelerators=["l4"]), "traffic.users=2000")]
    assert names == ["as asked", "traffic.users=2000"]


@pytest.mark.parametrize(
    ("change", "said"),
    [("users=5", "unknown key 'users'"), ("spot", "KEY=VALUE"), ("traffic.users=-1", "users"), ("rank=best", "rank")],
)
def test_a_change_that_makes_no_sense_is_named(change, said):
    with pytest.raises(InputError, match=said):
        changed(asked(), change)


def test_filters_reach_the_catalogue():
    found = catalogue(asked(clouds=["aws"], vendors=["nvidia"], models=[], max_parameters=1e9))
    assert all(m.parameters <= 1e9 for m in found.models)
    assert {o.cloud for group in found.offers.values() for o in group} == {"aws"}
    assert all(a.vendor == "NVIDIA" for a in found.accelerators.values())
