"""Answers as OpenAI's clients read them: whole, and as the events of a stream.

Reply.chat("adas").whole(answer, usage)              # {"id": "chatcmpl-…", "object": "chat.completion", …}
Reply.chat("adas").stream(job, with_usage=True)      # data: {"object": "chat.completion.chunk", …} … data: [DONE]
"""

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flows.serving.agent import Answer
from flows.serving.engine import Job
from flows.serving.metering import Meter
from flows.serving.problems import Problem, problem_of, tell
from phases.agent.calls import Call

DONE = "data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """What the answers to one request have in common."""

    kind: Literal["chat.completion", "text_completion"]
    model: str
    id: str
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def chat(cls, model: str) -> "Reply":
        """To a conversation."""
        return cls("chat.completion", model, f"chatcmpl-{uuid.uuid4().hex}")

    @classmethod
    def text(cls, model: str) -> "Reply":
        """To a text."""
        return cls("text_completion", model, f"cmpl-{uuid.uuid4().hex}")

    def whole(self, answer: Answer, meter: Meter) -> dict[str, Any]:
        """The answer in one piece."""
        if self.kind == "text_completion":
            choice: dict[str, Any] = {"text": answer.text}
        else:
            message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
            if answer.calls:
                message |= {"content": answer.text or None, "tool_calls": [_call(call) for call in answer.calls]}
            choice = {"message": message}
        choices = [{"index": 0, **choice, "logprobs": None, "finish_reason": answer.finish}]
        return self._object(self.kind, choices, usage_of(meter))

    async def stream(self, job: Job, with_usage: bool) -> AsyncIterator[str]:
        """The answer as server-sent events; an error in the midst is one of them. It always ends with `[DONE]`."""
        try:
            async for event in self._events(job, with_usage):
                yield event
        except Exception as error:
            if not isinstance(error, Problem):
                tell(error)
            yield _event(problem_of(error).body)
        yield DONE

    async def _events(self, job: Job, with_usage: bool) -> AsyncIterator[str]:
        usage: Mapping[str, Any] = {"usage": None} if with_usage else {}
        if self.kind == "chat.completion":
            yield self._chunk({"delta": {"role": "assistant", "content": ""}}, None, usage)
        async for piece in job.pieces():
            yield self._chunk(self._piece(piece), None, usage)
        assert job.answer is not None
        for index, call in enumerate(job.answer.calls):
            yield self._chunk({"delta": {"tool_calls": [{"index": index, **_call(call)}]}}, None, usage)
        last: dict[str, Any] = {"text": ""} if self.kind == "text_completion" else {"delta": {}}
        yield self._chunk(last, job.answer.finish, usage)
        if with_usage:
            yield _event(self._object(self._chunks, [], usage_of(job.meter)))

    def _piece(self, text: str) -> dict[str, Any]:
        return {"text": text} if self.kind == "text_completion" else {"delta": {"content": text}}

    @property
    def _chunks(self) -> str:
        """The name of a stream's objects."""
        return self.kind if self.kind == "text_completion" else f"{self.kind}.chunk"

    def _chunk(self, choice: Mapping[str, Any], finish: str | None, usage: Mapping[str, Any]) -> str:
        choices = [{"index": 0, **choice, "logprobs": None, "finish_reason": finish}]
        return _event({**self._object(self._chunks, choices), **usage})

    def _object(
        self, kind: str, choices: list[dict[str, Any]], usage: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        made = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        return made if usage is None else {**made, "usage": usage}


def usage_of(meter: Meter) -> dict[str, int]:
    """What an answer cost in tokens."""
    read, written = meter.prompt_tokens, meter.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _event(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
