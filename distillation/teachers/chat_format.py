"""OpenAI's chat format: what is sent to an endpoint, and what is understood of an answer or of a captured request.

An answer is a stranger's: whatever is not as it should be is `Malformed`, with a few words that hold nothing of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from distillation.record import Message, Role
from distillation.teachers.teacher import Ask
from phases.agent.wording import clean


class Malformed(Exception):
    """Not a chat completion, or not one that can be learnt from."""

    def __init__(self, reason: str, lasting: bool = False) -> None:
        """`lasting`: well-formed, but of no use, and the same when asked again."""
        super().__init__(reason)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Completion:
    """What an answer says."""

    text: str
    finish: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int


def plain_extra(extra: dict[str, Any]) -> dict[str, Any]:
    """Fields that may join a request: none that changes who is asked what, or the form of the answer."""
    taken = sorted(extra.keys() & {"model", "messages", "stream", "n", "tools", "functions", "response_format"})
    if taken:
        raise ValueError(f"{', '.join(taken)} cannot be set here")
    return extra


def request_body(
    ask: Ask, model: str, limit_field: str, omit: Sequence[str], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON of a request."""
    body = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in ask.messages],
        limit_field: ask.max_tokens,
        "temperature": ask.temperature,
        "seed": ask.seed,
    }
    return {name: value for name, value in body.items() if name not in omit} | dict(extra)


def read_completion(body: bytes | str | Mapping[str, Any]) -> Completion:
    """The first choice of a chat completion. Raises `Malformed`."""
    try:
        answer = json.loads(body) if isinstance(body, bytes | str) else body
        choice = answer["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason") or "stop"
        text = message.get("content")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise Malformed("what it answers is not a chat completion") from None
    if finish not in ("stop", "length"):
        known = finish if finish in ("content_filter", "tool_calls", "function_call") else "something unknown"
        raise Malformed(f"the answer ends with {known}, so there is no whole text to learn", lasting=True)
    if not isinstance(text, str):
        raise Malformed("it answers without a text", lasting=True)
    usage = answer.get("usage")
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    cached = min(_count(details, "cached_tokens") or 0, prompt or 0)
    return Completion(clean(text), finish, prompt, completion, cached)


def read_request(body: Mapping[str, Any]) -> Ask:
    """The question of a captured request. Raises `Malformed` for one that is more than a text conversation."""
    if body.get("tools") or body.get("functions") or body.get("response_format") or (body.get("n") or 1) != 1:
        raise Malformed("a request with tools, a response format or several choices")
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise Malformed("a request without messages")
    messages = tuple(_message(one) for one in given)
    if messages[-1].role != "user":
        raise Malformed("a request whose last message is not the user's")
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    # What the provider does where nothing is said: no limit of its own, temperature 1.
    return Ask(
        messages,
        max_tokens=int(_number(limit, 0, "max_tokens")),
        temperature=float(_number(body.get("temperature"), 1.0, "temperature")),
        seed=int(_number(body.get("seed"), 0, "seed")),
    )


def _message(given: Any) -> Message:
    said: Any = given if isinstance(given, dict) else {}
    role: Any = "system" if said.get("role") == "developer" else said.get("role")
    content = said.get("content")
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        content = "".join(part["text"] for part in content)
    if role not in get_args(Role) or not isinstance(content, str):
        raise Malformed("a message that is not a text of system, user or assistant")
    return Message(role, clean(content))


def _count(values: Any, name: str) -> int | None:
    count = values.get(name) if isinstance(values, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def _number(value: Any, default: float, name: str) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
        raise Malformed(f"a request whose {name} is not a number")
    return value
