"""The endpoints: /health, /v1/models, /v1/chat/completions, /v1/completions.

app = make_app(engine, agent)
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from flows.serving.agent import ServedAgent
from flows.serving.engine import Engine, Job, Work
from flows.serving.problems import Problem, install
from flows.serving.replies import Reply, usage_of
from flows.serving.requests import Asked, ChatAsked, TextAsked

T = TypeVar("T")
GONE = 499
"""The status, in the log alone, of a client that did not wait."""


def make_app(engine: Engine, agent: ServedAgent) -> FastAPI:
    """The application that serves an agent."""
    # Its pages would fetch scripts from elsewhere; telling what can be asked is the README's part.
    app = FastAPI(title="agent-forge", docs_url=None, redoc_url=None, openapi_url=None)
    install(app)
    started = int(time.time())
    model = {"id": agent.name, "object": "model", "created": started, "owned_by": "agent-forge"}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """That the model answers: the server does not listen before it has."""
        waits = {"pending": engine.pending, "uptime_s": int(time.time()) - started}
        return {"status": "ok", "model": agent.name, "digest": agent.digest, **waits}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name}")
    async def one_model(name: str) -> dict[str, Any]:
        _known(name, agent)
        return model

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatAsked, request: Request) -> Any:
        _known(asked.model, agent)
        return await _answer(engine, lambda meter: agent.chat(asked, meter), asked, Reply.chat(agent.name), request)

    @app.post("/v1/completions")
    async def complete(asked: TextAsked, request: Request) -> Any:
        _known(asked.model, agent)
        return await _answer(engine, lambda meter: agent.complete(asked, meter), asked, Reply.text(agent.name), request)

    return app


def _known(name: str, agent: ServedAgent) -> None:
    if name != agent.name:
        raise Problem(404, f"the model '{name}' does not exist; there is: {agent.name}", "model", "model_not_found")


async def _answer(engine: Engine, work: Work, asked: Asked, reply: Reply, request: Request) -> Any:
    """The answer, or a stream that begins when it is known that there is one: an error is none of its events."""
    if asked.stream_options is not None and not asked.stream:
        raise Problem(400, "stream_options: only together with stream", "stream_options", "invalid_value")
    job = engine.submit(work, asked.stops)
    try:
        await unless_gone(request, job.begun())
        if asked.stream:
            return Stream(job, reply, asked.usage)
        await unless_gone(request, job.text())
    except BaseException:
        job.stop()
        raise
    assert job.answer is not None
    _tell(request.scope, job)
    return reply.whole(job.answer, job.meter)


class Stream(StreamingResponse):
    """A stream, whose job ends with it, whether it was read to its end, broken off, or never begun."""

    def __init__(self, job: Job, reply: Reply, with_usage: bool) -> None:
        super().__init__(
            reply.stream(job, with_usage), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.stop()
            _tell(scope, self.job)


def _tell(scope: Scope, job: Job) -> None:
    """For the line of the log."""
    used = usage_of(job.meter)
    scope["state"]["usage"] = f", {used['prompt_tokens']} + {used['completion_tokens']} tokens"


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work makes. Raises `Problem` as soon as the client has gone."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Problem(GONE, "the client has gone")
        return doing.result()
    finally:
        doing.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    """Wait until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
