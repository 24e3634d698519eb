"""Timings from estimates: what the physics predicts of a load is what the simulated engine then shows."""

import dataclasses
import json
from typing import Any

import pytest

from deployment.hardware import Accelerator, Offer
from deployment.model import LayerGroup, Model
from deployment.planning.candidate import Candidate
from deployment.serving import Estimate, Figure, Load, MemoryPlan, Serving
from deployment.simulator.playing import played
from deployment.simulator.timing import Timing, make_timing
from phases.errors import InputError

GIB = 2**30
MODEL = Model(
    "Qwen/Qwen3-8B", "qwen3",
    (LayerGroup(36, "attention", 41_943_040, 150_994_944, heads=32, kv_heads=8, head_dim=128),),
    4096, 151_936, 40_960, 1_244_659_712,
)  # fmt: skip
L40S = Accelerator("l40s", "NVIDIA", 44 * GIB, 8.64e11, {"bf16": 3.62e14}, 3e10, 1e10, 1, 350, "datasheet")
OFFER = Offer("aws", "g6e.xlarge", "us-east-1", "l40s", 1, 1.86, "USD", False, 4, 32 * GIB, "2026-01-01", "list")


def formula(model: Model, accelerator: Accelerator, serving: Serving, load: Load) -> Estimate:
    """An engine with 20 ms + 0.3 ms a sequence, 0.2 ms a prompt token, and 15 ms before a request reaches it."""
    batch = float(load.concurrency or 1)
    step, prompt = 0.020 + 0.0003 * batch, 0.0002 * load.prompt_tokens
    # Of the others' prompts each sequence meets as many as there are others while it writes its answer.
    tpot = step + batch / load.output_tokens * prompt
    figures = [Figure(x, x, x, "analytic") for x in (prompt + 0.015, tpot, batch / tpot)]
    memory = MemoryPlan(40 * GIB, 16 * GIB, 2 * GIB, 1 * GIB, 20 * GIB, GIB)
    return Estimate(memory, batch, *figures, parts={"weights": 0.020, "kv": 0.0003 * batch})


def candidate(load: Load, **serving: Any) -> Candidate:
    asked = Serving(max_context=8192, **serving)
    one = formula(MODEL, L40S, asked, load)
    return Candidate(MODEL, L40S, OFFER, asked, load, 1, 1, one, 0.3, 0.03, 8.0, 1.86, 1.0)


@pytest.fixture(scope="module")
def timing() -> Timing:
    return make_timing(candidate(Load(1000, 200, concurrency=8)), formula)


def test_tables_are_the_formulas(timing: Timing) -> None:
    for batch in (1, 3, 8, 50):
        assert timing.step(batch) == pytest.approx(0.020 + 0.0003 * batch)
    for tokens in (125, 700, 4000):
        assert timing.prefill(tokens) == pytest.approx(0.0002 * tokens)
        assert timing.overhead(tokens) == pytest.approx(0.015)


def test_room_for_keys_and_values(timing: Timing) -> None:
    per_token = 36 * 2 * 8 * 128 * 2
    assert timing.kv_tokens == pytest.approx(20 * GIB / per_token, rel=1e-3)
    assert (timing.slots, timing.step_tokens) == (256, 2048)  # vLLM's defaults for less than 70 GiB


@pytest.mark.parametrize("users", [1, 8, 32])
def test_a_played_load_shows_what_is_predicted(users: int) -> None:
    load = Load(1000, 200, concurrency=users)
    planned = candidate(load)
    seen = played(make_timing(planned, formula), dataclasses.asdict(load))
    assert seen["tpot"]["mean"] == pytest.approx(planned.estimate.tpot.value, rel=0.08)
    assert seen["ttft"]["p50"] >= planned.estimate.ttft.value - 1e-9  # and what waits in the queue


def test_an_agent_on_a_cpu_answers_one_at_a_time() -> None:
    planned = dataclasses.replace(candidate(Load(100, 50, rate=0.01)), accelerator=None)
    made = make_timing(planned)
    token = planned.estimate.tpot.value
    assert made.slots == 1 and made.prefill(100) == pytest.approx(100 * token) and made.step(1) == token


def test_json_and_back(timing: Timing) -> None:
    data = json.loads(json.dumps(dataclasses.asdict(timing)))
    assert Timing.read(data) == timing
    for broken in ({**data, "slots": 0}, {**data, "steps": []}, {**data, "prefills": "x"}):
        with pytest.raises(InputError, match="write the plan anew"):
            Timing.read(broken)
