"""Search services over HTTP: one retry, a limit of time and of size, and one clear line for whatever goes wrong.

    engine = HttpSearch(Searxng(kind="searxng", url="http://127.0.0.1:8888"), timeout_seconds=5)
    engine.search("grokking", 3)     # [Hit(…), …], or SearchUnavailable: offline: 127.0.0.1:8888 cannot be reached

A service is a stranger: its answer is read up to `MOST_BYTES` and without decompressing it, and nobody is followed
elsewhere, as the key would go along. Messages name the host and nothing else of a request, so no key is in one.
"""

import html
import json
import os
import re
import ssl
import time
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx

from phases.agent.search import Brave, Hit, Json, SearchUnavailable, Searxng
from phases.agent.wording import clean

MOST_BYTES = 2_000_000
RETRY_SECONDS = 0.5
QUERY_CHARS = 400
"""Characters of a query that are sent; Brave takes no more."""
_MAY_PASS = {429, 500, 502, 503, 504}
_HINTS = {
    401: "the key is not accepted",
    403: "refused: the key is not accepted, or JSON is switched off there",
    404: "nothing is at that address; check `url`",
    429: "asked too often",
}


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    """Read once: it takes longer than many a service."""
    return httpx.create_ssl_context()


class _Passing(SearchUnavailable):
    """What may be gone at the second attempt."""


class _Request(NamedTuple):
    """What is sent."""

    address: str
    parameters: dict[str, str] | None
    headers: dict[str, str]


class _Shape(NamedTuple):
    """Where an answer has what: keys with dots between them."""

    hits: str
    title: str
    link: str
    text: str


class HttpSearch:
    """One service."""

    def __init__(self, config: Searxng | Brave | Json, timeout_seconds: float) -> None:
        self.config, self.timeout = config, timeout_seconds
        self.host = urlsplit(config.url).netloc
        self.name = config.kind

    def search(self, query: str, limit: int) -> list[Hit]:
        """Its best hits. Raises `SearchUnavailable` with the reason, which never holds a key."""
        request = self._request(query[:QUERY_CHARS].encode("utf-8", "replace").decode(), limit)
        try:
            body = self._get(request)
        except _Passing:
            time.sleep(RETRY_SECONDS)
            body = self._get(request)
        return self._hits(body)[:limit]

    def _request(self, query: str, limit: int) -> _Request:
        # Compressed answers could be bombs.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "agent-forge"}
        config = self.config
        if isinstance(config, Json):
            return _Request(config.url.replace("{query}", quote(query, safe="")), None, headers)
        if isinstance(config, Searxng):
            return _Request(config.url.rstrip("/") + "/search", {"q": query, "format": "json"}, headers)
        key = os.environ.get(config.key_variable, "").strip()
        if not key:
            raise SearchUnavailable(f"no key; set the environment variable {config.key_variable}")
        if not (key.isascii() and key.isprintable()):
            raise SearchUnavailable(f"the environment variable {config.key_variable} holds no key: a sign is not ASCII")
        parameters = {"q": query, "count": str(limit), "text_decorations": "false"}
        return _Request(config.url, parameters, {**headers, "X-Subscription-Token": key})

    def _get(self, request: _Request) -> bytes:
        """The body of an answer with status 200."""
        deadline = time.monotonic() + self.timeout
        address, parameters, headers = request
        try:
            with httpx.stream(
                "GET", address, params=parameters, headers=headers, timeout=self.timeout, verify=_certificates()
            ) as answer:
                self._check_status(answer.status_code)
                return self._read(answer, deadline)
        except httpx.ConnectError:
            raise _Passing(f"offline: {self.host} cannot be reached") from None
        except httpx.ConnectTimeout:
            raise SearchUnavailable(f"offline: {self.host} cannot be reached in {self.timeout:g} s") from None
        except httpx.TimeoutException:
            raise self._too_slow() from None
        except (httpx.ReadError, httpx.RemoteProtocolError):
            raise _Passing(f"{self.host} broke off its answer") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            # Their messages may quote the request. A host such as `a..b` is a UnicodeError of the codec `idna`.
            raise SearchUnavailable(f"{self.host} cannot be asked ({type(error).__name__})") from None

    def _check_status(self, status: int) -> None:
        if status == 200:
            return
        moved = "it sends elsewhere; set `url` to where the service is now" if 300 <= status < 400 else ""
        hint = _HINTS.get(status, moved)
        reason = f"{self.host} answers {status}" + (f": {hint}" if hint else "")
        raise (_Passing if status in _MAY_PASS else SearchUnavailable)(reason)

    def _read(self, answer: httpx.Response, deadline: float) -> bytes:
        body = bytearray()
        for part in answer.iter_raw():
            body += part
            if len(body) > MOST_BYTES:
                raise SearchUnavailable(f"{self.host} answers with more than {MOST_BYTES:,} bytes")
            if time.monotonic() > deadline:  # httpx's own limit is for each part
                raise self._too_slow()
        return bytes(body)

    def _too_slow(self) -> SearchUnavailable:
        return SearchUnavailable(f"{self.host} did not answer in {self.timeout:g} s")

    def _hits(self, body: bytes) -> list[Hit]:
        """Hits of an answer that have a title. Raises `SearchUnavailable` for an answer of another shape."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise SearchUnavailable(f"{self.host} answers with something that is not JSON") from None
        shape = _shape(self.config)
        found = _at(answer, shape.hits)
        if found is None and self.config.kind == "brave" and isinstance(answer, dict):
            return []  # its answer has no `web` when there are no hits
        if not isinstance(found, list):
            raise SearchUnavailable(f"{self.host} answers without a list at '{shape.hits}'")
        hits = [Hit(*(_text(_at(one, path)) for path in shape[1:])) for one in found]
        if found and not any(hit.title for hit in hits):
            raise SearchUnavailable(f"{self.host} answers with hits without a text at '{shape.title}'")
        return [hit for hit in hits if hit.title]


def _shape(config: Searxng | Brave | Json) -> _Shape:
    if isinstance(config, Json):
        return _Shape(config.hits, config.title, config.link, config.text)
    if isinstance(config, Searxng):
        return _Shape("results", "title", "url", "content")
    return _Shape("web.results", "title", "url", "description")


def _at(value: Any, path: str) -> Any:
    """What lies under keys (or numbers in a list) with dots between them; None where there is nothing."""
    for key in path.split(".") if path else ():
        if isinstance(value, list) and re.fullmatch(r"[0-9]{1,6}", key):
            value = value[int(key)] if int(key) < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    """A text or number as plain text on one line, with nothing in it that cannot be encoded."""
    return " ".join(clean(html.unescape(str(value))).split()) if isinstance(value, str | int | float) else ""
