"""An endpoint that does everything wrong that endpoints do, on loopback."""

import asyncio
import itertools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from distillation.record import Message
from distillation.teachers.endpoint import EndpointTeacher, EndpointTeacherConfig
from distillation.teachers.teacher import Answer, Ask, Failure
from phases.errors import ConfigError

KEY = "sk-secret-0123456789"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}


def ask(text: str) -> Ask:
    return Ask((Message("user", text),), max_tokens=16)


def said(text: str, finish: str = "stop", usage: Any = USAGE) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


class Endpoint:
    """An ASGI app: `reply(question, times)` says what the so-manieth request for a question gets."""

    def __init__(self) -> None:
        self.reply: Callable[[str, int], tuple[Any, ...]] = lambda question, times: (200, said(question.upper()))
        self.times: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.at: list[float] = []
        self.busy = self.most_busy = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        request = json.loads(body)
        question = request["messages"][-1]["content"]
        self.times[question] += 1
        self.bodies.append(request)
        self.at.append(time.monotonic())
        self.keys |= {value.decode() for name, value in scope["headers"] if name == b"authorization"}
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await self._send(send, *self.reply(question, self.times[question]))
        finally:
            self.busy -= 1

    async def _send(
        self, send: Any, status: int, body: bytes, headers: Any = (), seconds: float = 0.0, cut: bool = False
    ) -> None:
        await asyncio.sleep(seconds)
        length = len(body) + (50 if cut else 0)
        every = [(b"content-length", str(length).encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": every})
        await send({"type": "http.response.body", "body": body, "more_body": cut})
        if cut:
            raise ConnectionAbortedError


@pytest.fixture
def endpoint() -> Iterator[tuple[Endpoint, str]]:
    app = Endpoint()
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", ws="none", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([port],))
        thread.start()
        while not server.started:
            time.sleep(0.005)
        yield app, f"http://127.0.0.1:{port.getsockname()[1]}/v1"
        server.should_exit = True
        thread.join()


def open_one(url: str, **options: Any) -> EndpointTeacher:
    quick = {"backoff_seconds": 0.01, "longest_wait_seconds": 0.05, "request_seconds": 5.0}
    price = {"usd_per_million_in": 2.0, "usd_per_million_cached": 1.0, "usd_per_million_out": 8.0}
    return EndpointTeacher.open(
        EndpointTeacherConfig.parse({"base_url": url, "model": "m", "price": price, **quick, **options}, "test")
    )


def outcomes(teacher: EndpointTeacher, *questions: str) -> list[Answer | Failure]:
    return [outcome for _, outcome in sorted(teacher.answer(ask(q) for q in questions))]


def only(teacher: EndpointTeacher, question: str = "hi") -> Any:
    (outcome,) = outcomes(teacher, question)
    return outcome


def test_answers_come_with_tokens_and_their_price(endpoint: tuple[Endpoint, str]) -> None:
    app, url = endpoint
    answer = only(open_one(url))
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens) == ("HI", 7, 3, 2)
    assert answer.usd == pytest.approx((5 * 2 + 2 * 1 + 3 * 8) / 1e6, rel=1e-12)
    assert app.bodies == [
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16, "temperature": 0.0, "seed": 0}
    ]


def test_many_are_asked_at_once_and_no_more_than_allowed(endpoint: tuple[Endpoint, str]) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (200, said(question), (), 0.05)
    questions = [f"q{i}" for i in range(20)]
    got = outcomes(open_one(url, concurrency=4), *questions)
    assert [answer.text for answer in got] == questions and app.most_busy == 4  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_may_pass_is_tried_again(endpoint: tuple[Endpoint, str], status: int) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (200, said("ok")) if times == 3 else (status, b"{}")
    answer = only(open_one(url))
    assert answer.text == "ok" and answer.wasted == 0 and app.times["hi"] == 3


def test_retry_after_is_obeyed_by_every_request(endpoint: tuple[Endpoint, str]) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (
        (429, b"{}", [(b"retry-after", b"1")]) if question == "first" and times == 1 else (200, said("ok"))
    )
    assert all(isinstance(o, Answer) for o in outcomes(open_one(url, concurrency=1), "first", "second"))
    assert app.at[1] - app.at[0] >= 1.0


def test_a_wait_that_is_longer_than_the_question_may_take_is_not_begun(endpoint: tuple[Endpoint, str]) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (429, b"{}", [(b"retry-after", b"3600")])
    failure = only(open_one(url, total_seconds=2.0))
    assert failure == Failure("it answers 429; given up after 1 attempts", lasting=False)


@pytest.mark.parametrize("status", [400, 403, 422, 301])
def test_other_statuses_are_lasting(endpoint: tuple[Endpoint, str], status: int) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (status, b'{"error": {"message": "bad ' + KEY.encode() + b'"}}')
    failure = only(open_one(url))
    assert failure.lasting and f"{status}" in failure.reason and app.times["hi"] == 1


@pytest.mark.parametrize("status", [401, 402, 404])
def test_what_holds_for_every_question_is_asked_once(endpoint: tuple[Endpoint, str], status: int) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (status, b"{}")
    got = outcomes(open_one(url, concurrency=1), *[f"q{i}" for i in range(50)])
    assert all(isinstance(o, Failure) and o.lasting for o in got) and app.times.total() == 1


def test_a_used_up_quota_is_no_rate_limit(endpoint: tuple[Endpoint, str]) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (429, b'{"error": {"code": "insufficient_quota"}}')
    assert only(open_one(url)).lasting and app.times.total() == 1


def test_a_hanging_answer_is_given_up_and_counted_as_perhaps_charged(endpoint: tuple[Endpoint, str]) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (200, said("late"), (), 3.0 if times == 1 else 0.0)
    answer = only(open_one(url, request_seconds=0.3))
    assert answer.text == "late" and answer.wasted == 1


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"null", b'{"choices": []}', b'{"choices": [{}]}', b"<html>"])
def test_a_malformed_body_is_tried_again(endpoint: tuple[Endpoint, str], broken: bytes) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (200, broken) if times == 1 else (200, said("ok"))
    answer = only(open_one(url))
    assert answer.text == "ok" and answer.wasted == 1


def test_a_cut_off_body_is_tried_again(endpoint: tuple[Endpoint, str]) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (200, said("ok"), (), 0.0, times == 1)
    answer = only(open_one(url))
    assert answer.text == "ok" and answer.wasted == 1


@pytest.mark.parametrize("finish", ["content_filter", "tool_calls", "martian"])
def test_no_whole_text_is_lasting_and_perhaps_charged(endpoint: tuple[Endpoint, str], finish: str) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (200, said("half", finish))
    failure = only(open_one(url))
    assert failure.lasting and failure.wasted == 1 and app.times["hi"] == 1


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "7"}])
def test_without_usage_tokens_and_price_are_unknown(endpoint: tuple[Endpoint, str], usage: Any) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (200, said("ok", usage=usage))
    answer = only(open_one(url))
    assert answer.text == "ok" and answer.prompt_tokens is None and answer.usd is None


def test_a_night_without_a_service_ends_cleanly_and_soon() -> None:
    with socket.socket() as port:  # nobody listens
        port.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{port.getsockname()[1]}/v1"
        teacher = open_one(url, breaker_failures=3, breaker_pause_seconds=0.1, breaker_probes=2)
        began = time.monotonic()
        got = outcomes(teacher, *[f"q{i}" for i in range(200)])
    assert len(got) == 200 and all(isinstance(o, Failure) and not o.lasting and not o.wasted for o in got)
    assert sum("nothing was asked" in o.reason for o in got) > 180 and time.monotonic() - began < 5  # type: ignore[union-attr]


def test_a_service_that_comes_back_is_asked_again(endpoint: tuple[Endpoint, str]) -> None:
    app, url = endpoint
    app.reply = lambda question, times: (503, b"") if app.times.total() <= 6 else (200, said("ok"))
    options = {"breaker_failures": 3, "breaker_pause_seconds": 0.1, "breaker_probes": 10, "attempts": 20}
    got = outcomes(open_one(url, concurrency=3, **options), *"abcdefgh")
    assert all(isinstance(o, Answer) for o in got)
    probes = app.at[3:7]  # three failures in flight, then one at a time, each after a pause
    assert all(later - earlier > 0.09 for earlier, later in itertools.pairwise(probes))


def test_requests_keep_to_the_rate(endpoint: tuple[Endpoint, str]) -> None:
    _, url = endpoint
    began = time.monotonic()
    outcomes(open_one(url, requests_per_minute=600, concurrency=50), *[f"q{i}" for i in range(60)])
    # 600 a minute: a burst of 50, then one each 0.1 s; a busy machine only makes it longer.
    assert time.monotonic() - began >= 0.9


def test_the_key_is_sent_and_shows_up_nowhere(
    endpoint: tuple[Endpoint, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, url = endpoint
    caplog.set_level("DEBUG")
    monkeypatch.setenv("TEACHER_KEY", KEY)
    app.reply = lambda question, times: (
        (400, json.dumps({"error": {"message": f"wrong {KEY}"}}).encode()) if question == "a" else (200, said(KEY))
    )
    teacher = open_one(url, key_variable="TEACHER_KEY")
    got = outcomes(teacher, "a", "b")
    assert app.keys == {f"Bearer {KEY}"}
    assert isinstance(got[0], Failure) and "wrong (key)" in got[0].reason and got[1].text == "(key)"  # type: ignore[union-attr]
    assert KEY not in f"{got} {teacher.identity} {teacher.config!r} {caplog.text}"


@pytest.mark.parametrize("key", ["", "  ", "schlüssel", "two\nlines"])
def test_a_missing_key_is_said_before_anything_is_asked(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", key)
    with pytest.raises(ConfigError, match="set the environment variable TEACHER_KEY"):
        open_one("http://127.0.0.1:1/v1", key_variable="TEACHER_KEY")


def test_what_the_giver_of_questions_raises_comes_out(endpoint: tuple[Endpoint, str]) -> None:
    def asks() -> Iterator[Ask]:
        yield ask("one")
        raise ConfigError("enough")

    with pytest.raises(ConfigError, match="enough"):
        list(open_one(endpoint[1]).answer(asks()))


def test_questions_are_taken_when_there_is_room(endpoint: tuple[Endpoint, str]) -> None:
    taken = 0

    def asks() -> Iterator[Ask]:
        nonlocal taken
        for i in range(100):
            taken += 1
            yield ask(str(i))

    answers = open_one(endpoint[1], concurrency=2).answer(asks())
    for read in range(1, 5):
        next(answers)
        time.sleep(0.05)  # a slow reader
        assert taken <= read + 1
    answers.close()


def test_identity_tells_what_answers_depend_on() -> None:
    url = "http://127.0.0.1:1/v1"
    plain, slash = open_one(url), open_one(url + "/", seed=3, concurrency=1)
    assert plain.identity == slash.identity == f"{url} m"
    assert len({t.identity for t in (plain, open_one(url, extra={"a": 1}), open_one(url, omit=["seed"]))}) == 3


def test_fields_can_be_renamed_left_out_and_added(endpoint: tuple[Endpoint, str]) -> None:
    app, url = endpoint
    only(open_one(url, limit_field="max_completion_tokens", omit=["temperature", "seed"], extra={"top_k": 4}))
    assert app.bodies[0].keys() == {"model", "messages", "max_completion_tokens", "top_k"}


@pytest.mark.parametrize("name", ["stream", "messages", "n"])
def test_what_would_change_the_answers_form_cannot_be_added(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} cannot be set here"):
        open_one("http://127.0.0.1:1/v1", extra={name: 1})


def test_what_a_question_costs_at_most_is_never_less_than_what_it_costs(endpoint: tuple[Endpoint, str]) -> None:
    teacher = open_one(endpoint[1])
    answer = only(teacher, "日本語 and more")
    most = teacher.most_usd(ask("日本語 and more"))
    assert most is not None and answer.usd < most < 1e-3
    assert open_one(endpoint[1], price=None).most_usd(ask("x")) is None
