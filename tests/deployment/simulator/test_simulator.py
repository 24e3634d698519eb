"""The simulated engine: its own clock against hand-made figures, and the server against a real client."""

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.simulator.app import make_app
from deployment.simulator.batching import Batch, Sequence
from deployment.simulator.playing import in_flight, play, played
from deployment.simulator.running import Fleet
from deployment.simulator.timing import Timing
from phases.errors import InputError

TIMING = Timing(
    steps=((1.0, 0.010), (16.0, 0.025)),  # 9 ms and 1 ms a sequence
    prefills=((100.0, 0.010), (1000.0, 0.100)),
    overheads=((1.0, 0.0),),
    slots=8,
    kv_tokens=100_000,
    step_tokens=4096,
)
NONE = TIMING.overheads


def test_one_request_alone() -> None:
    (one,) = play(TIMING, [(5.0, 1000, 11)])
    assert one.ttft == pytest.approx(0.100)
    assert one.tpot == pytest.approx(0.010)
    assert one.finished == pytest.approx(5.0 + 0.100 + 10 * 0.010)


def test_overhead_delays_its_own_request_alone() -> None:
    late = replace(TIMING, overheads=((1000.0, 0.05),))
    first, second = play(late, [(0.0, 1000, 11), (0.105, 1000, 2)])
    assert first.ttft == pytest.approx(0.150) and first.finished == pytest.approx(0.150 + 9 * 0.010 + 0.111)
    assert second.first == pytest.approx(0.160 + 0.110)


def test_a_prompt_delays_whoever_decodes() -> None:
    first, second = play(TIMING, [(0.0, 1000, 11), (0.105, 1000, 2)])
    # The second arrives during the first's decoding step that ends at 0.110: prefilled with the next one.
    assert second.first == pytest.approx(0.110 + 0.010 + 0.100)
    assert first.finished == pytest.approx(
        0.100 + 9 * 0.010 + 0.100 + 0.011
    )  # one step holds the prompt, one is of two


def test_slots_and_kv_pool_make_wait() -> None:
    few = Timing(TIMING.steps, TIMING.prefills, NONE, slots=1, kv_tokens=10_000, step_tokens=4096)
    first, second = play(few, [(0.0, 1000, 11), (0.0, 1000, 11)])
    assert second.started == first.finished
    narrow = Timing(TIMING.steps, TIMING.prefills, NONE, slots=8, kv_tokens=1500, step_tokens=4096)
    first, second = play(narrow, [(0.0, 1000, 11), (0.0, 1000, 11)])
    assert second.started == first.finished


def test_long_prompts_are_prefilled_in_pieces() -> None:
    chunked = Timing(TIMING.steps, TIMING.prefills, NONE, slots=8, kv_tokens=100_000, step_tokens=250)
    batch = Batch(chunked)
    batch.add(one := Sequence(1000, 2))
    seconds = [batch.step()[0] for _ in range(4)]
    assert seconds == pytest.approx([0.025] * 4) and one.first == pytest.approx(0.100)


def test_speculation_gives_more_tokens_a_step() -> None:
    quick = Timing(TIMING.steps, TIMING.prefills, NONE, 8, 100_000, 4096, tokens_per_step=2.5)
    (one,) = play(quick, [(0.0, 1000, 101)])
    assert one.tpot == pytest.approx(0.010 / 2.5)


def test_closed_loop_against_the_closed_form() -> None:
    """TPOT = step(B) + (B − 1)/(tokens − 1) · prefill, where everybody's prompt delays all others."""
    done = in_flight(TIMING, 8, 400, 1000, itertools.cycle((81, 91, 101, 111, 121)))[-300:]
    tpot = sum(one.tpot or 0.0 for one in done) / len(done)
    assert TIMING.step(8) <= tpot <= TIMING.step(8) + 8 / 100 * TIMING.prefill(1000)


sizes = st.integers(1, 3000)


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.floats(0, 5), sizes, st.integers(1, 50)), min_size=1, max_size=12),
    slots=st.integers(1, 6),
    step_tokens=st.integers(16, 4096),
    kv_tokens=st.integers(10, 20_000),
)
def test_every_request_gets_its_tokens_in_time(
    arrivals: list[tuple[float, int, int]], slots: int, step_tokens: int, kv_tokens: int
) -> None:
    timing = Timing(TIMING.steps, TIMING.prefills, NONE, slots, kv_tokens, step_tokens)
    done = play(timing, arrivals)
    assert len(done) == len(arrivals)
    for one in done:
        assert one.written == one.output_tokens and one.first is not None and one.finished is not None
        assert one.ttft >= timing.prefill(one.prompt_tokens) - 1e-9
        assert one.tpot is None or one.tpot >= timing.step(1) - 1e-9
        assert one.arrived <= (one.started or 0.0) <= one.first <= one.finished


def test_played_load_and_nonsense() -> None:
    load = {"prompt_tokens": 1000, "output_tokens": 101, "concurrency": 4, "rate": None}
    seen = played(TIMING, load)
    assert seen["tpot"]["p50"] <= seen["tpot"]["p95"] <= seen["tpot"]["p99"]
    slow = played(TIMING, {**load, "concurrency": None, "rate": 0.01})
    assert slow["tpot"]["mean"] == pytest.approx(0.010, rel=0.02) and slow["ttft"]["p50"] == pytest.approx(0.1)
    with pytest.raises(InputError, match="neither a rate nor requests"):
        played(TIMING, {**load, "concurrency": None})
    with pytest.raises(InputError, match="cannot be read"):
        Timing.read({"steps": []})


@contextmanager
def serving(fleet: Fleet, prompt_tokens: int | None = 1000) -> Iterator[str]:
    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(fleet, prompt_tokens), log_config=None, ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        bound.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Fleet(TIMING, "Qwen/Qwen3-32B", 20, replicas=2)) as address:
        yield address


async def _timed(client: httpx.AsyncClient, tokens: int) -> tuple[float, float]:
    """TTFT and TPOT of one streamed answer, by the client's clock."""
    body = {"model": "Qwen/Qwen3-32B", "prompt": "x", "max_tokens": tokens, "stream": True}
    start, times = time.perf_counter(), []
    async with client.stream("POST", "/v1/completions", json=body) as reply:
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                times.append(time.perf_counter())
    assert len(times) == tokens
    return times[0] - start, (times[-1] - times[0]) / (tokens - 1)


async def _load(url: str, users: int, tokens: int) -> tuple[float, float]:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await client.get("/health")
        rows = await asyncio.gather(*(_timed(client, tokens) for _ in range(users)))
    return max(row[0] for row in rows), sum(row[1] for row in rows) / len(rows)


def _own_clock(fleet: Fleet) -> tuple[float, float]:
    """Mean TTFT and TPOT by the engine's clock."""
    times = fleet.engines[0].metrics.times
    names = ("time_to_first_token_seconds", "request_time_per_output_token_seconds")
    ttft, tpot = (times[name].total / times[name].count for name in names)
    return ttft, tpot


@pytest.mark.parametrize("users", [1, 4])
def test_measured_as_predicted(users: int) -> None:
    """By the engine's clock closely, by a client's roughly. A busy machine is slower, never quicker: hence tries."""
    slow = Timing(((1.0, 0.030), (16.0, 0.060)), ((100.0, 0.02), (1000.0, 0.2)), NONE, 8, 100_000, 8192)
    # The first to arrive finds an idle engine; the others come during its prefill.
    expected = play(slow, [(0.001 * i, 1000, 40) for i in range(users)])
    ttft, tpot = (sum(values) / users for values in ([o.ttft for o in expected], [o.tpot or 0.0 for o in expected]))
    tries = []
    for _ in range(6):
        fleet = Fleet(slow, "Qwen/Qwen3-32B", 40)
        with serving(fleet) as address:
            last, per_token = asyncio.run(_load(address, users, 40))
        tries.append((_own_clock(fleet), last, per_token))
        assert last >= 0.95 * max(one.ttft for one in expected) and per_token >= 0.9 * tpot
        if tries[-1][0] == pytest.approx((ttft, tpot), rel=0.07) and per_token == pytest.approx(tpot, rel=0.15):
            return
    pytest.fail(f"predicted {ttft, tpot}, measured {tries}")


def test_openais_own_client(url: str) -> None:
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert [one.id for one in client.models.list()] == ["Qwen/Qwen3-32B"]
        messages: Any = [{"role": "user", "content": "hello"}]
        whole = client.chat.completions.create(model="Qwen/Qwen3-32B", messages=messages, max_tokens=5)
        assert whole.usage and (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (1000, 5)
        stream = client.chat.completions.create(
            model="Qwen/Qwen3-32B", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == " word" * 20 and chunks[-1].usage and chunks[-1].usage.completion_tokens == 20
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.completions.create(model="other", prompt="x")


def test_metrics_have_vllms_names(url: str) -> None:
    httpx.post(f"{url}/v1/completions", json={"prompt": "x", "max_tokens": 4}, timeout=30).raise_for_status()
    page = httpx.get(f"{url}/metrics").text
    for name in (
        "vllm:num_requests_running",
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:generation_tokens_total",
    ):
        assert f'{name}{{model_name="Qwen/Qwen3-32B",engine="1"' in page
    counts = [float(line.split()[-1]) for line in page.splitlines() if "time_to_first_token_seconds_bucket" in line]
    assert sum(counts) > 0 and all(a <= b for a, b in itertools.pairwise(counts[:20]))


def test_a_client_that_leaves_frees_its_slot() -> None:
    fleet = Fleet(TIMING, "m", 20)
    with serving(fleet) as address, httpx.Client(base_url=address, timeout=30) as client:
        with client.stream(
            "POST", "/v1/completions", json={"prompt": "x", "max_tokens": 3000, "stream": True}
        ) as reply:
            next(reply.iter_lines())
        until = time.monotonic() + 20
        while fleet.engines[0].load and time.monotonic() < until:
            time.sleep(0.05)
        assert fleet.engines[0].batch.idle and fleet.engines[0].metrics.finished["abort"] == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, 400),
        ({"prompt": "x", "n": 2}, 400),
        ({"prompt": ["x", "y"]}, 400),
        ({"prompt": "x", "max_tokens": 10**6}, 400),
        ({"prompt": "x", "max_tokens": 0}, 422),
        ({"prompt": [1, 2, 3], "max_tokens": 1}, 200),
    ],
)
def test_bad_requests(url: str, body: dict[str, Any], code: int) -> None:
    assert httpx.post(f"{url}/v1/completions", json=body, timeout=30).status_code == code


def test_prompts_are_counted_without_a_tokenizer() -> None:
    from deployment.simulator.app import Body, count_tokens

    assert count_tokens(Body(prompt="word " * 400)) == 500
    assert count_tokens(Body(prompt=[7] * 12)) == 12
    assert count_tokens(Body(messages=[{"role": "user", "content": "word " * 400}])) == 500
    assert json.loads(Body(prompt="x").model_dump_json())["stream"] is False
