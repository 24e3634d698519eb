"""OpenAI's HTTP interface before the simulated engine: what load generators and clients call, and /metrics.

Words are invented, times are predicted. Without the model's tokenizer a prompt's tokens are counted as its bytes / 4
(English text has some 4 bytes a token in today's vocabularies), unless it is sent as token ids or `prompt_tokens` fixes
the number.
"""

import asyncio
import json
import socket
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from deployment.simulator.running import Fleet, Stopped

BYTES_PER_TOKEN = 4
_WORD = " word"
_ERRORS = {400: "BadRequestError", 404: "NotFoundError", 503: "ServiceUnavailableError"}
_STOPPED = "the server was told to stop"


class Body(BaseModel):
    """What decides the time that a request takes; everything else that clients send is accepted and has no effect."""

    model_config = ConfigDict(extra="ignore")
    model: str = ""
    prompt: str | list[int] | list[str] | list[list[int]] | None = None
    messages: list[dict[str, Any]] | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int = 1


class Server(uvicorn.Server):
    """Ends the open answers when it is told to stop: uvicorn would wait for them, and then tear them down noisily."""

    def __init__(self, config: uvicorn.Config, fleet: Fleet) -> None:
        super().__init__(config)
        self._fleet = fleet

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Once, when it stops."""
        self._fleet.stop()
        await super().shutdown(sockets)


def make_app(fleet: Fleet, prompt_tokens: int | None = None) -> FastAPI:
    """The application; its engines run while it does. `prompt_tokens` fixes every prompt's length."""

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(fleet.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(lifespan=running, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse({})

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(fleet.page(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        one = {"id": fleet.model, "object": "model", "created": 0, "owned_by": "agent-forge"}
        return JSONResponse({"object": "list", "data": [one]})

    @app.post("/v1/completions")
    @app.post("/v1/chat/completions")
    async def complete(body: Body, request: Request) -> Any:
        return await _answer(fleet, body, request.url.path.endswith("/chat/completions"), prompt_tokens)

    return app


async def _answer(fleet: Fleet, body: Body, chat: bool, fixed: int | None) -> Any:
    if body.model not in ("", fleet.model):
        return _error(404, f"the model `{body.model}` does not exist; this is `{fleet.model}`")
    several = isinstance(body.prompt, list) and len(body.prompt) > 1 and not isinstance(body.prompt[0], int)
    if body.n != 1 or several:
        return _error(400, "the simulator takes one prompt and gives one answer; leave `n` at 1")
    asked = body.messages if chat else body.prompt
    if not asked:
        return _error(400, f"`{'messages' if chat else 'prompt'}` is missing or empty")
    prompt = fixed or count_tokens(body)
    asked_tokens = body.max_completion_tokens or body.max_tokens
    output = asked_tokens or fleet.output_tokens
    if fleet.max_context is not None:
        if asked_tokens is None:  # vLLM gives what is left
            output = max(1, min(output, fleet.max_context - prompt))
        if prompt + output > fleet.max_context:
            return _error(400, _too_long(fleet.max_context, prompt, output))
    if prompt + output > fleet.timing.kv_tokens:
        return _error(400, f"{prompt} + {output} tokens do not fit {fleet.timing.kv_tokens} of the KV pool")
    reply = _Reply(fleet.model, chat, prompt)
    if body.stream:
        usage = bool((body.stream_options or {}).get("include_usage"))
        return StreamingResponse(reply.stream(fleet, output, usage), media_type="text/event-stream")
    try:
        async with aclosing(fleet.answer(prompt, output)) as answer:
            async for tokens in answer:
                reply.tokens += tokens
    except Stopped:
        return _error(503, _STOPPED)
    return JSONResponse(reply.whole())


def count_tokens(body: Body) -> int:
    """Of a request's prompt."""
    if body.messages is not None:
        text = "".join(json.dumps(m.get("content"), ensure_ascii=False) for m in body.messages)
    elif isinstance(body.prompt, list):
        first = body.prompt[0]
        if isinstance(first, int):
            return len(body.prompt)
        if isinstance(first, list):
            return len(first)
        text = first
    else:
        text = body.prompt or ""
    return max(1, round(len(text.encode()) / BYTES_PER_TOKEN))


def _too_long(most: int, prompt: int, output: int) -> str:
    """vLLM's words: clients look for them."""
    return (
        f"This model's maximum context length is {most} tokens. However, you requested {output} output tokens and your "
        f"prompt contains {prompt} input tokens, for a total of {prompt + output} tokens. Please reduce the length of "
        "the input prompt or the number of requested output tokens."
    )


def _error(code: int, message: str) -> JSONResponse:
    return JSONResponse(_told(code, message), code)


def _told(code: int, message: str) -> dict[str, Any]:
    """An error in vLLM's form."""
    return {"error": {"message": message, "type": _ERRORS[code], "param": None, "code": code}}


class _Reply:
    """One answer, in OpenAI's shapes."""

    def __init__(self, model: str, chat: bool, prompt_tokens: int) -> None:
        self.chat, self.prompt_tokens, self.tokens = chat, prompt_tokens, 0
        kind = "chat.completion" if chat else "text_completion"
        number = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.head = {"id": number, "object": kind, "created": int(time.time()), "model": model}

    @property
    def usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens, "total_tokens": total}

    def whole(self) -> dict[str, Any]:
        """Everything at once."""
        text = (_WORD * self.tokens).lstrip()
        content: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": "length"}
        return {**self.head, "choices": [choice], "usage": self.usage}

    async def stream(self, fleet: Fleet, output: int, usage: bool) -> AsyncIterator[str]:
        """Server-sent events, one for each step that brought tokens."""
        if self.chat:
            self.head["object"] = "chat.completion.chunk"
        try:
            async with aclosing(fleet.answer(self.prompt_tokens, output)) as answer:  # a client that leaves ends it
                async for tokens in answer:
                    self.tokens += tokens
                    yield self._event([self._piece(_WORD * tokens, "length" if self.tokens >= output else None)])
        except Stopped:
            yield f"data: {json.dumps(_told(503, _STOPPED))}\n\n"
            return
        if usage:
            yield self._event([], self.usage)
        yield "data: [DONE]\n\n"

    def _piece(self, text: str, reason: str | None) -> dict[str, Any]:
        content: dict[str, Any] = {"delta": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {"index": 0, **content, "logprobs": None, "finish_reason": reason}

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> str:
        body = {**self.head, "choices": choices, **({"usage": usage} if usage else {})}
        return f"data: {json.dumps(body)}\n\n"
