"""Search services over HTTP: one retry, a time limit, a size limit, and one clear line for whatever goes wrong."""

import os
import time
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from phases.agent.search import Brave, Hit, Json, SearchUnavailable, Searxng

MOST_BYTES = 2_000_000
RETRY_SECONDS = 0.5
_AGAIN = {429, 500, 502, 503, 504}


class HttpSearch:
    """One service."""

    def __init__(self, config: Searxng | Brave | Json, timeout_seconds: float) -> None:
        self.config, self.timeout = config, timeout_seconds
        self.host = urlsplit(config.url).netloc.rpartition("@")[2]
        self.name = config.kind

    def search(self, query: str, limit: int) -> list[Hit]:
        """Its best hits. Raises `SearchUnavailable` with the reason, which never holds a key."""
        found = self._hits(self._fetch(query))
        config = self.config
        paths = (config.title, config.link, config.text) if isinstance(config, Json) else _FIELDS[config.kind]
        hits = [Hit(*(str(_at(one, path) or "") for path in paths)) for one in found if isinstance(one, dict)]
        return [hit for hit in hits if hit.title][:limit]

    def _hits(self, answer: Any) -> list[Any]:
        path = self.config.hits if isinstance(self.config, Json) else _LISTS[self.config.kind]
        found = _at(answer, path)
        if not isinstance(found, list):
            raise SearchUnavailable(f"{self.host} answers without a list at '{path}'")
        return found

    def _fetch(self, query: str) -> Any:
        address, parameters, headers = self._request(query)
        for attempt in (1, 2):
            try:
                return self._get(address, parameters, headers, last=attempt == 2)
            except _TryAgain:
                time.sleep(RETRY_SECONDS)
        raise AssertionError("the second attempt returns or raises")

    def _request(self, query: str) -> tuple[str, dict[str, str], dict[str, str]]:
        config = self.config
        if isinstance(config, Json):
            return config.url.replace("{query}", quote(query, safe="")), {}, {}
        if isinstance(config, Searxng):
            return config.url.rstrip("/") + "/search", {"q": query, "format": "json"}, {}
        key = os.environ.get(config.key_variable, "")
        if not key:
            raise SearchUnavailable(f"no key; set the environment variable {config.key_variable}")
        return config.url, {"q": query}, {"X-Subscription-Token": key, "Accept": "application/json"}

    def _get(self, address: str, parameters: dict[str, str], headers: dict[str, str], last: bool) -> Any:
        try:
            with httpx.stream(
                "GET", address, params=parameters or None, headers=headers, timeout=self.timeout, follow_redirects=False
            ) as answer:
                if answer.status_code in _AGAIN and not last:
                    raise _TryAgain
                if answer.status_code != 200:
                    raise SearchUnavailable(f"{self.host} answers {answer.status_code}{_hint(answer.status_code)}")
                body = b""
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise SearchUnavailable(f"{self.host} answers with more than {MOST_BYTES:,} bytes")
            return httpx.Response(200, content=body).json()
        except httpx.TimeoutException:
            raise SearchUnavailable(f"{self.host} did not answer in {self.timeout:g} s") from None
        except httpx.ConnectError:
            if not last:
                raise _TryAgain from None
            raise SearchUnavailable(f"offline: {self.host} cannot be reached") from None
        except httpx.HTTPError as error:
            raise SearchUnavailable(f"{self.host}: {type(error).__name__}") from None
        except ValueError:
            raise SearchUnavailable(f"{self.host} answers with something that is not JSON") from None


class _TryAgain(Exception):
    """Worth another attempt."""


_LISTS = {"searxng": "results", "brave": "web.results"}
_FIELDS = {"searxng": ("title", "url", "content"), "brave": ("title", "url", "description")}


def _at(value: Any, path: str) -> Any:
    """What lies under keys with dots between them; None where there is nothing."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _hint(status: int) -> str:
    return ": the key is not accepted" if status in (401, 403) else ""
