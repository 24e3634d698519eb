"""Mistakes of clients, clients that leave, too many of them; the command itself: its key, its memory, its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from flows.cli import main
from phases.agent.memory import Memory

Ask = Callable[..., Any]
CONTEXT = 512

MISTAKES: list[tuple[dict[str, Any], int, str]] = [
    ({"model": "other"}, 404, "model"),
    ({"temperature": 3}, 400, "temperature"),
    ({"n": 2}, 400, "n"),
    ({"extra_body": {"best": 1}}, 400, "best"),
    ({"tool_choice": "required"}, 400, "tool_choice"),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
    ({"messages": []}, 400, "messages"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]}, 400, "messages[0].tool_call_id"),
    ({"messages": [{"role": "user", "content": "x" * CONTEXT}]}, 400, "messages"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, 400, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": 1}}}]}, 400, "tools[0].function"),
]


@pytest.mark.parametrize(("wrong", "status", "field"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_name_their_field(client: openai.OpenAI, wrong: Any, status: int, field: str) -> None:
    asked: Any = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], **wrong}
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**asked)
    assert caught.value.status_code == status and str(caught.value.param).startswith(field)
    assert isinstance(caught.value.body, dict) and set(caught.value.body) == {"message", "type", "param", "code"}
    if len(str(wrong)) > CONTEXT:
        assert caught.value.code == "context_length_exceeded"


def test_bodies_that_are_none(client: openai.OpenAI) -> None:
    address = f"{client.base_url}completions"
    assert httpx.post(address, content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert (
        httpx.post(address, content=b'{"model": "tiny", "prompt": "x"}').status_code == 400
    )  # as other sites' pages can
    big = httpx.post(address, json={"model": "tiny", "prompt": "x" * 2**20})
    assert big.status_code == 413 and big.json()["error"]["code"] == "request_too_large"
    assert httpx.get(f"{client.base_url}none").json()["error"]["message"] == "Not Found"


ENDLESS: Any = {"model": "tiny", "prompt": "x", "max_tokens": 400, "user": "endless"}


def until_pending(client: openai.OpenAI, count: int) -> None:
    until = time.monotonic() + 20
    while httpx.get(str(client.base_url).replace("/v1/", "/health")).json()["pending"] != count:
        assert time.monotonic() < until


def test_a_client_that_leaves_ends_the_writing(client: openai.OpenAI, ended: threading.Event) -> None:
    with client.completions.create(**ENDLESS, stream=True) as stream:
        assert next(iter(stream)).choices[0].text is not None and not ended.is_set()
        with pytest.raises(openai.APITimeoutError):  # waits for its turn, and gives up
            client.with_options(timeout=0.3).completions.create(model="tiny", prompt="x")
        until_pending(client, 1)
    assert ended.wait(20)
    ended.clear()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=1).completions.create(**ENDLESS)
    assert ended.wait(20)


def test_one_waits_and_more_are_refused(client: openai.OpenAI, ask: Ask, ended: threading.Event) -> None:
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(client, "sum")))
    with client.completions.create(**ENDLESS, stream=True) as stream:
        next(iter(stream))
        waiting.start()
        until_pending(client, 2)
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, "sum")
        assert caught.value.status_code == 503 and int(caught.value.response.headers["retry-after"]) > 0
        assert not answers
    waiting.join(20)
    assert ended.is_set() and answers[0].choices[0].message.content == "So it is."


def test_a_server_that_stops_says_so(another: tuple[openai.OpenAI, uvicorn.Server], ended: threading.Event) -> None:
    client, server = another
    threading.Timer(0.3, lambda: setattr(server, "should_exit", True)).start()
    with pytest.raises(openai.InternalServerError, match="the server is stopping"):
        client.completions.create(**ENDLESS)
    assert ended.wait(20)


def test_a_failure_says_where_and_not_what(client: openai.OpenAI, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(openai.InternalServerError, match="RuntimeError"):
        client.completions.create(model="tiny", prompt="a secret", user="broken")
    with pytest.raises(openai.APIError, match="RuntimeError"):
        list(client.completions.create(model="tiny", prompt="a secret", user="broken later", stream=True))
    broken = {"model": "tiny", "prompt": "a secret", "user": "broken later", "stream": True}
    assert httpx.post(f"{client.base_url}completions", json=broken).text.endswith("data: [DONE]\n\n")
    log = capfd.readouterr().err
    assert log.count("serve: RuntimeError at conftest.py:") == 3 and "secret" not in log


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_bad_input_is_one_line(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}: Address already in use" in fails(["serve", str(path), "--port", str(port)], capsys)
    free = ["serve", str(path), "--port", "0"]
    assert "not a checkpoint" in fails(["serve", str(tmp_path), "--port", "0"], capsys)
    assert "cannot be read" in fails([*free, "--tool", str(tmp_path / "none.py")], capsys)
    assert "no key" in fails([*free, "--api-key-env", "FORGE_NO_SUCH_KEY"], capsys)
    assert "do not go together" in fails([*free, "--memory", "x", "--no-memory"], capsys)
    assert "--queue -1: give 0" in fails([*free, "--queue", "-1"], capsys)
    assert "--host 999.1.1.1" in fails([*free, "--host", "999.1.1.1"], capsys)


def test_help_needs_no_server() -> None:
    code = "import sys; from flows.cli import parser; parser(); assert not {'fastapi', 'uvicorn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_asks_for_its_key_remembers_and_ends_with_zero(path: Path, tmp_path: Path, ask: Ask) -> None:
    memory, key = tmp_path / "memory.sqlite", "very-secret"
    command = [sys.executable, "-m", "flows.cli", "serve", str(path), "--port", "0", "--json", "--memory", str(memory)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KEY": key}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--api-key-env", "KEY"], env=environment, **pipes) as process:
        try:
            url = json.loads(process.stdout.readline())["url"]
            with openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client:
                with pytest.raises(openai.AuthenticationError):
                    client.models.list()
                assert httpx.get(url.replace("/v1", "/health")).status_code == 200
                assert ask(client.with_options(api_key=key), "keep").choices[0].message.content == "So it is."
            process.send_signal(signal.SIGTERM)
            out, log = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0 and out == "" and "POST /v1/chat/completions 200 in " in log
    assert "GET /v1/models 401 in " in log and not any(word in log for word in ("keep", "So it is", key, "wrong"))
    with Memory(memory) as kept:
        assert [fact.text for fact in kept.facts()] == ["a"]
        assert [(one.role, one.text) for one in kept.episodes()] == [("user", "keep"), ("assistant", "So it is.")]
