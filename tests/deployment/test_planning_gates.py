"""Hard gates: each says the constraint, the value and the limit."""

from dataclasses import replace

import pytest

from deployment.hardware import Accelerator
from deployment.model import LayerGroup, Model, Quality
from deployment.planning.candidate import Rejection
from deployment.planning.fleet import Latencies, Subject
from deployment.planning.floors import demand, replicas_floor, tpot_floor, ttft_floor
from deployment.planning.gates import model_gate, precisions, undivided
from deployment.planning.nearest import kinds, nearest
from deployment.planning.request import Request
from deployment.serving import Serving

LAYER = LayerGroup(10, "attention", 1000, dense_parameters=4000, heads=12, kv_heads=4, head_dim=8)
MODEL = Model("m", "llama", (LAYER,), 96, 1000, 4096, 10_000, licence="apache-2.0")
CARD = Accelerator("card", "NVIDIA", 10**9, 1e9, {"bf16": 1e12, "fp8": 2e12}, 1e9, 1e9, 8, 100.0, "test")


def asked(**settings):
    request = Request.parse({"use_case": "extraction", "models": ["m"], **settings}, "request")
    return request, request.workload()


def test_a_model_that_passes():
    assert model_gate(MODEL, *asked(licences=["permissive"])) is None


def test_licence():
    failed = model_gate(replace(MODEL, licence="llama3.1"), *asked(licences=["permissive", "gemma"]))
    assert (failed.constraint, failed.value, failed.limit) == ("licence", "llama3.1", "permissive or gemma")
    assert model_gate(replace(MODEL, licence="gemma"), *asked(licences=["permissive", "Gemma"])) is None
    assert model_gate(replace(MODEL, licence="own"), *asked(licences=["mit"])) is None, "one's own agent"


def test_task_is_a_gate_where_the_planner_chooses():
    request = Request.parse({"use_case": "extraction"}, "request")
    base = replace(MODEL, tasks=("text",))
    failed = model_gate(base, request, request.workload())
    assert (failed.constraint, failed.value, failed.limit) == ("task", "text", "chat")
    assert model_gate(base, *asked()) is None, "named by the user"


def test_context():
    failed = model_gate(replace(MODEL, context=4095), *asked())
    assert (failed.constraint, failed.value, failed.limit) == ("context", 4095, 4096)


def test_quality_is_published_or_missing_never_guessed():
    request, workload = asked(quality={"benchmark": "MMLU-Pro", "at_least": 60})
    assert model_gate(MODEL, request, workload).value == "no published score"
    scored = replace(MODEL, quality=(Quality("mmlu-pro", 59.5, "card"),))
    assert model_gate(scored, request, workload).value == 59.5
    assert model_gate(replace(MODEL, quality=(Quality("MMLU-Pro", 60, "card"),)), request, workload) is None


@pytest.mark.parametrize(
    ("tp", "problem"),
    [(1, None), (2, None), (4, None), (12, "vocabulary"), (8, "heads"), (3, "KV heads"), (5, "heads")],
)
def test_tensor_parallelism_divides(tp, problem):
    """12 heads, 4 KV heads (copied where TP is a multiple of them), 1,000 words padded to 1,024."""
    found = undivided(MODEL, tp)
    assert found is None if problem is None else found[0].startswith(problem)


def test_only_16_bit_checkpoints_are_quantised_again():
    request, _ = asked(precisions=["stored", "fp8", "bf16"])
    assert precisions(MODEL, request) == (["stored", "fp8"], [])  # bf16 is what it is stored in
    kept, rejected = precisions(replace(MODEL, stored_bits=4.5), request)
    assert kept == ["stored"]
    assert [r.constraint for r in rejected] == ["precision", "precision"]


def test_floors_by_hand():
    """10 layers of 5,000 weights and 10,000 of embeddings, 16 bits: 120 kB; a cache of 820 tokens of 1,280 B."""
    _, workload = asked(prompt={"mean": 800, "p95": 2000}, output={"mean": 40, "p95": 120})
    work = demand(MODEL, Serving(), workload)
    assert tpot_floor(work, CARD) == pytest.approx((120e3 + 820 * 10 * 2 * 4 * 8 * 2) / 1e9)
    assert ttft_floor(work, CARD) == tpot_floor(work, CARD)  # 2 · 50,000 · 2,000 / 2·10¹² = 0.1 ms is less
    assert replicas_floor(work, CARD, 1e6) == 42  # 10⁶ · 2 · 50,000 · 840 / 2·10¹² = 42


def test_kinds_count_and_name_the_nearest():
    some = [Rejection(f"{n}", "m", "g", "memory", 10.0 + n, 10.0, "GiB") for n in (5, 1, 3, 2)]
    words = Rejection("w", "m", "", "licence", "other", "mit", "")
    memory, licence = kinds([words, *some], few=2)
    assert (memory.constraint, memory.count) == ("memory", 4)
    assert [one.candidate for one in memory.nearest] == ["1", "2"]
    assert licence.nearest == (words,)
    outdone = replace(some[0], constraint="outdone", value=10.0)
    assert nearest([words, outdone, *some]) == (some[1], words)


def test_rejections_say_value_limit_and_floor():
    _, workload = asked(slo={"tpot_p95_ms": 10})
    failed = Subject("m", "card", Serving()).missed(Latencies(0.1, 0.02, 1.0), workload, "words", is_floor=True)
    assert (failed.constraint, failed.value, failed.limit, failed.floor) == ("tpot", 0.02, 0.01, 0.02)
    assert str(failed) == "m stored on 1 × card (vllm): tpot 0.02 where 0.01 is the limit [s]; words"
    assert Subject("m", "card", Serving()).missed(Latencies(0.1, float("inf"), 1.0), workload).constraint == "tpot"
    assert Subject("m", "card", Serving()).missed(Latencies(0.1, 0.01, float("inf")), workload).constraint == "load"
