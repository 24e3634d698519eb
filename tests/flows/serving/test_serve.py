"""What `forge serve` answers at a real port, as OpenAI's own client reads it: chats, streams, calls, texts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from phases.checkpoint import open_checkpoint

Ask = Callable[..., Any]
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
DOUBLE: Any = {"type": "function", "function": {"name": "double", "description": "", "parameters": NUMBER}}


def joined(stream: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def test_models_and_health(client: openai.OpenAI, path: Path) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"] == [client.models.retrieve("tiny").id]
    health = httpx.get(str(client.base_url).replace("/v1/", "/health")).json()
    assert health.items() >= {"status": "ok", "model": "tiny", "digest": open_checkpoint(path).digest}.items()


def test_the_agents_own_tools_run_here(client: openai.OpenAI, ask: Ask) -> None:
    done = ask(client, "sum")
    assert done.choices[0].message.content == "So it is." and done.choices[0].finish_reason == "stop"
    written = 1 + len("python") + 1 + len('code": "3*4') + 1 + len("So it is.")  # a call's fixed parts are a token each
    assert done.usage.completion_tokens == written + 2  # and both ends
    assert done.usage.prompt_tokens == len("<|user|>sum<|assistant|>")
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


@pytest.mark.parametrize("more", [{}, {"tool_choice": "none"}, {"stop": ["\n"]}, {"max_tokens": 4}, {"max_tokens": 5}])
@pytest.mark.parametrize("text", ["hello", "sum"])
def test_a_stream_is_the_answer(client: openai.OpenAI, text: str, more: Any, ask: Ask) -> None:
    whole = ask(client, text, **more)
    *chunks, last = ask(client, text, stream=True, stream_options={"include_usage": True}, **more)
    assert joined(chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage == whole.usage and not last.choices


def test_without_calls_tokens_come_as_they_are_written(client: openai.OpenAI, ask: Ask) -> None:
    chunks = [c.choices[0].delta.content for c in ask(client, "hello", stream=True, tool_choice="none")]
    assert "".join(filter(None, chunks)) == "Good day, sir.\nAnd bye." and len(chunks) > 18
    assert len(list(ask(client, "hello", stream=True))) < 9  # a call may come: words of the whole


@pytest.mark.parametrize(
    ("more", "text", "finish"),
    [
        ({"stop": "\n"}, "Good day, sir.", "stop"),
        ({"stop": [" sir", "."]}, "Good day,", "stop"),
        ({"stop": "bye."}, "Good day, sir.\nAnd", "stop"),
        ({"max_completion_tokens": 6}, "Good d", "length"),
        ({"max_tokens": 4}, "Good", "length"),
    ],
)
def test_stop_strings_and_limits(client: openai.OpenAI, ask: Ask, more: Any, text: str, finish: str) -> None:
    for choice in ("none", "auto"):
        got = ask(client, "hello", tool_choice=choice, **more).choices[0]
        assert (got.message.content.rstrip(), got.finish_reason) == (text, finish)


def test_a_call_of_the_clients_tool_makes_a_round_trip(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "twice 4"}]
    first = client.chat.completions.create(model="tiny", messages=asked, tools=[DOUBLE])
    (call,) = first.choices[0].message.tool_calls or ()
    assert first.choices[0].finish_reason == "tool_calls" and first.choices[0].message.content is None
    assert call.type == "function" and (call.function.name, call.function.arguments) == ("double", '{"n": 4}')
    result = {"role": "tool", "tool_call_id": call.id, "content": "8"}
    back: Any = [*asked, first.choices[0].message, result]
    second = client.chat.completions.create(model="tiny", messages=back, tools=[DOUBLE])
    assert second.choices[0].message.content == "So it is." and second.choices[0].finish_reason == "stop"


def test_a_call_is_streamed(client: openai.OpenAI, ask: Ask) -> None:
    chunks = list(ask(client, "twice 4", tools=[DOUBLE], stream=True))
    (call,) = [one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or ()]
    assert json.loads(call.function.arguments) == {"n": 4} and chunks[-1].choices[0].finish_reason == "tool_calls"


def test_calls_can_be_forbidden_and_schemas_need_not_be_regular(client: openai.OpenAI, ask: Ask) -> None:
    forbidden = ask(client, "twice 4", tools=[DOUBLE], tool_choice="none", max_tokens=40).choices[0]
    assert forbidden.message.tool_calls is None and "<tool_call>" not in forbidden.message.content
    loose = {"type": "function", "function": {"name": "double", "parameters": {"properties": {"n": {}}}}}
    assert ask(client, "twice 4", tools=[loose]).choices[0].message.tool_calls[0].function.name == "double"


def test_completions(client: openai.OpenAI) -> None:
    def write(**more: Any) -> Any:
        return client.completions.create(model="tiny", prompt="<|user|>hello<|assistant|>", **more)

    done = write(max_tokens=40)
    assert done.choices[0].text == "Good day, sir.\nAnd bye." and done.choices[0].finish_reason == "stop"
    assert "".join(chunk.choices[0].text for chunk in write(max_tokens=40, stream=True)) == done.choices[0].text
    drawn = [write(temperature=2, seed=seed).choices[0].text for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and write().choices[0].text == "Good day, sir.\nA"
