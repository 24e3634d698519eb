"""One question to a language model behind an OpenAI-compatible endpoint: its answer, or why there is none.

    service = Service(base_url="http://127.0.0.1:8080/v1", model="qwen", key_variable="MY_KEY")
    service.ask([{"role": "user", "content": "Hello"}], service.key())       # "Hello! …", or raises `NoAnswer`

What may pass (a timeout, a refused connection, 429, 5xx) is tried twice more. A service is a stranger: its answer is
read up to a limit of time and of size and without decompressing it, and nobody is followed elsewhere, as the key would
go along. The key comes from the environment and is in no message.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from phases.agent.search import Address
from phases.agent.wording import clean
from phases.errors import ConfigError
from phases.strict import StrictModel

ATTEMPTS = 3
BACKOFF_SECONDS = 1.0
"""Wait before the second attempt; twice as long before the third."""
MOST_BYTES, MOST_CHARS = 2_000_000, 20_000
"""Of a response, and of what the model says in it."""
_MAY_PASS = {408, 429, 500, 502, 503, 504, 529}
Messages = Sequence[Mapping[str, str]]


class NoAnswer(Exception):
    """The service gives no answer; its few words say why, and are the same whenever that is so."""

    def __init__(self, reason: str, passing: bool = False) -> None:
        """`passing`: another attempt may help."""
        super().__init__(reason)
        self.passing = passing


class Service(StrictModel):
    """Where a language model answers."""

    base_url: Address
    """Address of an OpenAI-compatible API, as in https://api.openai.com/v1 or http://127.0.0.1:8080/v1."""
    model: str = Field(min_length=1)
    """Its name there."""
    key_variable: str = ""
    """Name of the environment variable that holds the key; empty: the service wants none."""
    temperature: float | None = Field(None, ge=0)
    """Of its answers; empty: the service's own."""
    timeout_seconds: float = Field(60.0, gt=0)
    """How long an attempt may take; there are three."""

    def key(self) -> str:
        """The key, empty where none is wanted. Raises `ConfigError` where it is missing."""
        key = os.environ.get(self.key_variable, "").strip() if self.key_variable else ""
        if self.key_variable and not (key and key.isascii() and key.isprintable()):
            raise ConfigError(f"proposer: no key; set the environment variable {self.key_variable} (in ASCII)")
        return key

    def ask(self, messages: Messages, key: str) -> str:
        """What the model says, the key taken out should it be repeated. Raises `NoAnswer`."""
        for attempt in range(ATTEMPTS - 1):
            try:
                return self._answer(messages, key)
            except NoAnswer as failed:
                if not failed.passing:
                    raise
            time.sleep(BACKOFF_SECONDS * 2**attempt)
        return self._answer(messages, key)

    def _answer(self, messages: Messages, key: str) -> str:
        text = _content(self._post(messages, key))
        return clean((text.replace(key, "(key)") if key else text)[:MOST_CHARS])

    def _post(self, messages: Messages, key: str) -> bytes:
        import httpx  # here: it is for those who have a service

        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        headers = {"Accept-Encoding": "identity", "User-Agent": "agent-forge"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        url, deadline = self.base_url.rstrip("/") + "/chat/completions", time.monotonic() + self.timeout_seconds
        try:
            with httpx.stream("POST", url, json=body, headers=headers, timeout=self.timeout_seconds) as answer:
                if answer.status_code != 200:
                    raise NoAnswer(f"answers {answer.status_code}", answer.status_code in _MAY_PASS)
                return _read(answer.iter_raw(), deadline)
        except httpx.TimeoutException:
            raise NoAnswer("too slow", passing=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError):
            # Their messages may quote the request, and with it the key.
            raise NoAnswer("cannot be reached", passing=True) from None


def _read(parts: Any, deadline: float) -> bytes:
    body = bytearray()
    for part in parts:
        body += part
        if len(body) > MOST_BYTES:
            raise NoAnswer("answers too much")
        if time.monotonic() > deadline:  # httpx's own limit is for each part
            raise NoAnswer("too slow", passing=True)
    return bytes(body)


def _content(body: bytes) -> str:
    """What the model says in a chat completion."""
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, RecursionError, LookupError, TypeError):
        text = None
    if not isinstance(text, str):
        raise NoAnswer("answers without a text")
    return text
