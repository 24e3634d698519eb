"""One attempt at a request: an answer, or a `Setback` that says what to do about it.

| what comes | again? | may have been charged |
|---|---|---|
| cannot be reached | yes | no |
| 408, 409, 429, 5xx | yes, after `Retry-After` | no |
| broken off, too slow, not JSON | yes | yes |
| 401, 402, 404, quota used up | no, and neither would any other question | no |
| any other status | no | no |
| no text, tool calls, filtered | no | yes |

A service is a stranger: its answer is read up to a limit of size and without decompressing it, and nobody is followed
elsewhere, as the key would go along. What httpx says may quote the request and with it the key, so it is in no message.
"""

import asyncio
import json
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import httpx

from distillation.teachers.chat_format import Malformed, read_completion
from distillation.teachers.pacing import retry_after_seconds
from distillation.teachers.prices import Price
from distillation.teachers.teacher import Answer
from phases.agent.wording import clean

MOST_BYTES = 8_000_000
"""Of an answer."""
MOST_CHARS = 200
"""Of what the service says is wrong."""
_MAY_PASS = {408, 409, 429, *range(500, 600)}
_EVERY = {
    401: "the key is not accepted (401); check the environment variable",
    402: "the account has no credit (402)",
    404: "nothing is at that address, or no such model (404); check base_url, which mostly ends in /v1, and model",
}
_EXPLAINS = {400, 413, 415, 422}
"""Statuses whose message is passed on; that of a refused key may quote it."""


@dataclass(frozen=True, slots=True)
class Setback:
    """An attempt that brought no answer."""

    reason: str
    lasting: bool = False
    """The same question would get the same."""
    every: bool = False
    """So would every other question."""
    down: bool = False
    """The service cannot be reached or is broken."""
    charged: bool = False
    """The provider may have charged for it."""
    wait_seconds: float | None = None
    """How long the service wants to be left alone."""


@dataclass(frozen=True)
class Service:
    """Where requests go."""

    client: httpx.AsyncClient
    url: str
    key: str
    seconds: float
    """How long an attempt may take."""
    price: Price | None

    async def post(self, body: dict[str, Any]) -> Answer | Setback:
        """Send a request and read what comes."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.seconds):
                status, headers, content = await self._exchange(body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            return Setback("it cannot be reached", down=True)
        except (TimeoutError, httpx.TimeoutException):
            return Setback(f"no answer within {self.seconds:g} s", down=True, charged=True)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, _TooMuch):
            return Setback("its answer broke off or is too long", down=True, charged=True)
        if status != 200:
            return self._refusal(status, headers, content)
        try:
            said = read_completion(content)
        except Malformed as error:
            return Setback(str(error), lasting=error.lasting, charged=True, down=not error.lasting)
        usd = None
        if self.price is not None and said.prompt_tokens is not None and said.completion_tokens is not None:
            usd = self.price.usd(said.prompt_tokens, said.cached_tokens, said.completion_tokens)
        seconds, text = time.monotonic() - began, self._without_key(said.text)
        tokens = said.prompt_tokens, said.completion_tokens, said.cached_tokens
        return Answer(text, *tokens, seconds=seconds, usd=usd, finish=said.finish)

    async def _exchange(self, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "agent-forge"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        async with self.client.stream("POST", self.url, json=body, headers=headers, timeout=self.seconds) as answer:
            content = bytearray()
            async for part in answer.aiter_raw():
                content += part
                if len(content) > MOST_BYTES:
                    raise _TooMuch
            return answer.status_code, answer.headers, bytes(content)

    def _refusal(self, status: int, headers: httpx.Headers, content: bytes) -> Setback:
        error = _error(content)
        if status == 429 and error.get("code") == "insufficient_quota":
            return Setback("the account's quota is used up (429)", lasting=True, every=True)
        if status in _MAY_PASS:
            wait = retry_after_seconds(headers.get("retry-after"), datetime.now(UTC))
            return Setback(f"it answers {status}", down=status >= 500, wait_seconds=wait)
        if status in _EVERY:
            return Setback(_EVERY[status], lasting=True, every=True)
        said = error.get("message")
        reason = f"it answers {status}"
        if status in _EXPLAINS and isinstance(said, str):
            reason += f": {' '.join(self._without_key(clean(said)).split())[:MOST_CHARS]}"
        return Setback(reason, lasting=True)

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "(key)") if self.key else text


@lru_cache(maxsize=1)
def certificates() -> ssl.SSLContext:
    """Read once: it takes longer than many a request."""
    return httpx.create_ssl_context()


class _TooMuch(Exception):
    """An answer longer than any model writes."""


def _error(content: bytes) -> dict[str, Any]:
    """The error object of a refusal, as OpenAI and most others have it; empty where there is none."""
    try:
        error = json.loads(content)["error"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}
