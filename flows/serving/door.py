"""Before the application: who may enter, how much they may bring, and one line for every request.

    door = Door(app, key="…")

The line has the method, the path, the status, the time and the tokens; never what was said, and never a key.
"""

import asyncio
import hmac
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.console import duration, say
from flows.serving.problems import Problem, problem_of, stopping, tell

MOST_BYTES = 2**20
"""Of a request's body."""
OPEN = "/health"
"""What is told to everyone: whoever watches the server needs no key."""


class Door:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, key: str | None = None) -> None:
        """Without a `key` everyone may enter."""
        self.app, self.key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http"
        start, status = time.perf_counter(), 0
        told = scope["state"] = {"usage": ""}

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, _limited(receive), note)
        except Exception as error:
            if not isinstance(error, Problem):
                tell(error)
            if not status:
                await problem_of(error).response()(scope, receive, note)
        except asyncio.CancelledError:  # the server stops, and has waited for it
            if not status:
                await stopping().response()(scope, receive, note)
            raise
        finally:
            path = scope["raw_path"].decode("ascii", "replace")[:80]  # still quoted: no line of one's own in the log
            say(f"{scope['method']} {path} {status or '-'} in {duration(time.perf_counter() - start)}{told['usage']}")

    def _check(self, scope: Scope) -> None:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        if self.key is not None and scope["path"] != OPEN:
            given = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
            if not hmac.compare_digest(given, self.key.encode()):
                asks = {"WWW-Authenticate": "Bearer"}
                raise Problem(
                    401, "wrong or no API key; send it as `Authorization: Bearer KEY`", None, "invalid_api_key", asks
                )
        if int(headers.get(b"content-length", b"0")) > MOST_BYTES:
            raise _too_large()


def _limited(receive: Receive) -> Receive:
    """What is received, as long as it is not too much."""
    came = 0

    async def limited() -> Any:
        nonlocal came
        message = await receive()
        came += len(message.get("body", b""))
        if came > MOST_BYTES:
            raise _too_large()
        return message

    return limited


def _too_large() -> Problem:
    return Problem(413, f"the body is larger than {MOST_BYTES:,} bytes; send less", code="request_too_large")
