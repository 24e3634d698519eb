"""The triage's decisions, and that its costs are those of the physics."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.hardware import Accelerator, Offer
from deployment.model import LayerGroup, Model
from deployment.physics.finetuning import AIMS, finetuning_cost
from deployment.physics.merging import merge_cost
from deployment.serving import Load
from deployment.triage.costs import HEADROOM, HOURS_PER_MONTH, running, smallest
from deployment.triage.decision import Decision, triage
from deployment.triage.need import Means, Need
from deployment.triage.ways import WAYS, Option
from phases.errors import ConfigError, InputError

GIB = 2**30
H100 = Accelerator(
    "h100-sxm", "nvidia", round(79.18 * GIB), 3.35e12, {"bf16": 989e12, "fp8": 1979e12}, 450e9, 50e9, 8, 700, ""
)


def dense(name: str, layers: int, hidden: int, heads: int, inner: int, vocabulary: int = 128256) -> Model:
    group = LayerGroup(
        count=layers,
        mixer="attention",
        mixer_parameters=2 * hidden * hidden + 2 * hidden * 8 * 128,
        dense_parameters=3 * hidden * inner,
        heads=heads,
        kv_heads=8,
        head_dim=128,
    )
    return Model(name, "llama", (group,), hidden, vocabulary, 32768, 2 * vocabulary * hidden)


SMALL, MIDDLE, LARGE = (
    dense("1b", 16, 2048, 16, 8192),
    dense("8b", 32, 4096, 32, 14336),
    dense("70b", 80, 8192, 64, 28672),
)
MEANS = Means(MIDDLE, H100, 2.5, bigger=LARGE, student=SMALL, agent=replace(SMALL, name="agent"), siblings=1)


def need(**change: object) -> Need:
    usual = {"requests_per_day": 20_000, "prompt_tokens": 800, "output_tokens": 200}
    return Need.parse(usual | change, "need")


def of(decision: Decision, way: str) -> Option:
    return next(option for option in decision.options if option.way == way)


def test_changing_facts_are_retrieved() -> None:
    decision = triage(need(gap="knowledge", knowledge_changes="daily", examples=10**7), MEANS)
    assert decision.best is not None and decision.best.way == "retrieval"
    assert of(decision, "finetune").verdict == of(decision, "forge").verdict == of(decision, "prompt").verdict == "no"
    assert "2312.05934" in decision.text()


def test_a_format_is_prompted_until_examples_make_it_cheaper() -> None:
    few = triage(need(gap="format"), MEANS)
    assert few.best is not None and few.best.way == "prompt"
    many = need(gap="format", examples=1000, requests_per_day=5_000_000)
    option = triage(many, MEANS).best
    assert option is not None and option.way == "finetune"  # the examples in each prompt cost more than one training


def test_a_skill_with_examples_is_trained() -> None:
    decision = triage(need(gap="skill", examples=60_000), replace(MEANS, siblings=0, bigger=None))
    assert decision.best is not None and decision.best.way == "finetune"
    for examples, verdict in ((0, "no"), (AIMS["skill"].low, "partly"), (AIMS["skill"].typical, "fits")):
        assert of(triage(need(examples=examples), MEANS), "finetune").verdict == verdict


def test_siblings_are_merged_before_anything_is_trained() -> None:
    decision = triage(need(gap="skill", examples=60_000), MEANS)
    assert decision.best is not None and decision.best.way == "merge"


def test_cost_alone_is_distilled() -> None:
    wanted = need(gap_points=0, narrow=True, unlabelled=100_000, requests_per_day=2_000_000)
    decision = triage(wanted, replace(MEANS, siblings=0, agent=None))
    assert decision.best is not None and decision.best.way == "distil"
    assert decision.present is not None and decision.best.serving is not None
    assert decision.best.serving.monthly < decision.present.monthly
    assert "neither cheaper nor faster" in " ".join(of(decision, "finetune").reasons)


def test_licences_bind() -> None:
    decision = triage(need(examples=60_000, training_allowed=False, answers_allowed=False, narrow=True), MEANS)
    assert "licence" in " ".join(of(decision, "finetune").reasons)
    assert of(decision, "finetune").verdict == of(decision, "distil").verdict == "no"


def test_costs_are_those_of_the_physics() -> None:
    from deployment.physics.estimate import estimate

    wanted = need(examples=60_000)
    decision = triage(wanted, MEANS)
    serving, slots = smallest(MIDDLE, H100, MEANS.serving, 1000)
    best = estimate(MIDDLE, H100, serving, Load(800, 200, concurrency=slots)).throughput.value
    replicas = max(1, math.ceil(20_000 / 86_400 * 3.0 * 200 / (HEADROOM * best)))
    monthly = replicas * serving.accelerators * 2.5 * HOURS_PER_MONTH
    tuned, merged, bigger = (of(decision, way) for way in ("finetune", "merge", "bigger"))
    assert tuned.serving is not None and bigger.serving is not None
    assert tuned.serving.monthly == pytest.approx(monthly)
    assert tuned.one_off == finetuning_cost(MIDDLE, H100, 2.5, examples=60_000, tokens_per_example=1000).cost.value
    assert merged.one_off == merge_cost(MIDDLE, 2, 2.5, with_base=True).cost
    assert tuned.total(12) == pytest.approx(tuned.one_off + 12 * monthly)
    assert bigger.serving.monthly == running(LARGE, MEANS, wanted).monthly > tuned.serving.monthly


@settings(max_examples=8, deadline=None)
@given(volume=st.floats(1, 1e7), factor=st.floats(1.1, 10))
def test_costs_never_fall_with_volume(volume: float, factor: float) -> None:
    less, more = (
        triage(need(requests_per_day=v, narrow=True, unlabelled=20_000), MEANS) for v in (volume, factor * volume)
    )
    for way in ("prompt", "retrieval", "merge", "finetune", "distil", "bigger", "forge"):
        assert of(more, way).total(12) >= of(less, way).total(12)


def test_limits_are_hard_and_say_the_number() -> None:
    free = triage(need(gap="skill"), MEANS)
    slow = of(free, "bigger").serving
    assert slow is not None
    bounded = triage(need(gap="skill", latency_goal_s=slow.seconds * 0.9), MEANS)
    assert of(bounded, "bigger").verdict == "no"
    assert "is the goal" in of(bounded, "bigger").reasons[-1]
    poor = triage(need(gap="skill", monthly_budget=slow.monthly * 0.9), MEANS)
    assert "budget" in " ".join(of(poor, "bigger").reasons)
    nothing = triage(need(monthly_budget=0), MEANS)
    assert nothing.best is None and nothing.text().startswith("Advice: none")


def test_what_is_missing_is_said() -> None:
    decision = triage(need(narrow=True), Means(MIDDLE, H100, 2.5))
    for way in ("bigger", "distil", "merge", "forge"):
        assert of(decision, way).verdict == "no" and "given" in of(decision, way).reasons[0]
    assert len(decision.options) == len(WAYS) == 7


def test_a_model_that_does_not_fit_is_no_way() -> None:
    l4 = replace(H100, name="l4", memory_bytes=22 * GIB)
    decision = triage(need(), replace(MEANS, model=LARGE, accelerator=l4, bigger=None))
    assert of(decision, "prompt").verdict == "no" and "does not fit" in " ".join(of(decision, "prompt").reasons)
    assert decision.present is None and "does not fit" in decision.notes[0]
    assert decision.options[-1].total(12) == math.inf
    with pytest.raises(InputError, match="made for"):
        smallest(MIDDLE, H100, MEANS.serving, 40_000)


@pytest.mark.parametrize(
    "change",
    [
        {"requests_per_day": 0},
        {"requests_per_day": -5},
        {"prompt_tokens": 0},
        {"gap": "magic"},
        {"peak": 0.5},
        {"x": 1},
    ],
)
def test_bad_need(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="need"):
        need(**change)


def test_documents_close_a_gap_of_knowledge_and_no_other() -> None:
    for gap, sources, verdict in (("knowledge", False, "fits"), ("skill", True, "partly"), ("format", False, "no")):
        assert of(triage(need(gap=gap, sources=sources), MEANS), "retrieval").verdict == verdict


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"unlabelled": 0}, "no"),
        ({"unlabelled": AIMS["skill"].low - 1}, "no"),
        ({"unlabelled": AIMS["skill"].low}, "partly"),
        ({"unlabelled": AIMS["skill"].typical}, "fits"),
        ({"unlabelled": AIMS["skill"].typical, "narrow": False}, "partly"),
        ({"unlabelled": AIMS["skill"].typical, "gap": "knowledge"}, "no"),
        ({"examples": AIMS["skill"].typical}, "fits"),
    ],
)
def test_a_student_needs_inputs_and_learns_no_facts(change: dict[str, object], verdict: str) -> None:
    option = of(triage(need(**{"narrow": True, **change}), MEANS), "distil")
    assert option.verdict == verdict


@pytest.mark.parametrize("change", [{"price_per_hour": -1.0}, {"price_per_hour": math.nan}, {"siblings": -3}])
def test_means_that_cannot_be(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match="0 or more"):
        replace(MEANS, **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bigger": MIDDLE}, r"^bigger = 8b \(8.03 billion parameters\) is not bigger than 8b "),
        ({"bigger": SMALL}, "not bigger than 8b"),
        ({"bigger": None, "student": MIDDLE}, "student = 8b .* is not smaller than its teacher, 8b"),
        ({"bigger": None, "student": LARGE}, "not smaller than its teacher"),
        ({"student": replace(LARGE, name="other")}, "not smaller than its teacher, 70b"),
    ],
)
def test_bigger_is_bigger_and_a_student_smaller(change: dict[str, Model | None], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(MEANS, **change)
    assert replace(MEANS, student=MIDDLE).teacher is LARGE, "the present model may learn from a bigger one"


def test_a_broken_calibration_is_no_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way would have failed on it, and none of them is to blame."""
    (tmp_path / "calibration.json").write_text("{")
    monkeypatch.setenv("FORGE_CALIBRATION", str(tmp_path / "calibration.json"))
    with pytest.raises(InputError, match=r"calibration\.json: no calibration that can be read"):
        triage(need(), MEANS)


def test_what_is_needed_what_is_there_and_what_it_costs() -> None:
    decision = triage(need(narrow=True, examples=100_000, unlabelled=200_000, horizon_months=1), MEANS)
    assert of(decision, "distil").data == (
        "10,000 to 400,000 real inputs, which the teacher answers, typically 50,000: "
        f"{AIMS['skill'].reason}; 100,000 labelled and 200,000 unlabelled ones are there, costs are of 300,000"
    )
    assert of(decision, "finetune").reasons == ("100,000 examples are enough for a skill",)
    assert of(triage(need(examples=1), MEANS), "finetune").reasons[0].startswith("1 example is too few for a skill")
    said = decision.text()
    assert "As it is: 1,825 USD a month" in said and "USD in 1 month;" in said
    assert "0 USD once, 1,825 USD a month (1 replica with 1 accelerator), " in said


def test_replicas_are_rented_in_instances_that_hold_them() -> None:
    """70 billion parameters in bf16 need two H100s: not those of single-GPU instances, however cheap they are."""
    single = Offer("c", "one", "r", "h100-sxm", 1, 1.0, "USD", False, 1, GIB, "2026-01-01", "test")
    eight = replace(single, instance="eight", count=8, price=16.0)
    means = replace(MEANS, offers=(single, eight))
    served = running(LARGE, means, need())
    assert served.serving.accelerators > 1
    whole = math.ceil(served.replicas * served.serving.accelerators / 8)
    assert served.monthly == whole * 16.0 * HOURS_PER_MONTH and served.rented == f"{whole} × c eight r"
    assert running(MIDDLE, means, need()).rented.endswith("× c one r")
    each = served.serving.accelerators
    assert f"(1 replica with {each} accelerators, on {whole} × c eight r)" in triage(need(), means).text()
    refused = of(triage(need(), replace(means, offers=(single,))), "bigger")
    assert refused.verdict == "no" and "no instance on offer has room" in refused.reasons[-1]
