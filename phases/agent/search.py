"""Engines of the search tool: the agent's own documents by default, HTTP services by config.

    config = SearchConfig(engines=({"kind": "searxng", "url": "http://127.0.0.1:8888"}, {"kind": "local"}))
    engines = open_providers(config, store)          # asked in this order until one answers

Keys of services come from environment variables, never from a config, and no message holds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from phases.agent.documents import Passage
from phases.errors import CheckpointError
from phases.strict import StrictModel


class SearchUnavailable(Exception):
    """An engine cannot answer; its one line says why."""


@dataclass(frozen=True)
class Hit:
    """One result."""

    title: str
    url: str
    text: str


class SearchProvider(Protocol):
    """An engine."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    def search(self, query: str, limit: int) -> list[Hit]:
        """Its best hits. Raises `SearchUnavailable`."""
        ...


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named:
        raise ValueError("this is no address of a service; write it as in http://127.0.0.1:8888")
    if "@" in parts.netloc:
        # A config rides along with the agent.
        raise ValueError("no password may stand in an address; take it out")
    return url


Address = Annotated[str, Field(pattern=r"^https?://"), AfterValidator(_address)]
"""Address of a service."""


class Local(StrictModel):
    """The agent's own documents."""

    kind: Literal["local"] = "local"
    """The agent's own documents."""


class Searxng(StrictModel):
    """A SearXNG server (its JSON format has to be switched on there)."""

    kind: Literal["searxng"]
    """A SearXNG server."""
    url: Address
    """Its address."""


class Brave(StrictModel):
    """Brave's search API."""

    kind: Literal["brave"]
    """Brave's search API."""
    key_variable: str = "BRAVE_API_KEY"
    """Environment variable that holds the key."""
    url: Address = "https://api.search.brave.com/res/v1/web/search"
    """Address of the API."""


class Json(StrictModel):
    """Any service that answers GET with JSON."""

    kind: Literal["json"]
    """Any service that answers GET with JSON."""
    # Not `Address` with a pattern of its own: of two patterns pydantic keeps the first and drops this one.
    url: Annotated[str, Field(pattern=r"^https?://[^/?#{}]+[/?].*\{query\}"), AfterValidator(_address)]
    """Its address, with {query} where the question goes."""
    hits: str = "results"
    """Where the list of hits is: keys (or numbers in a list) with dots between them; empty: the answer is the list."""
    title: str = "title"
    """Where a hit's title is."""
    link: str = "url"
    """Where its address is."""
    text: str = "content"
    """Where its text is."""


class SearchConfig(StrictModel):
    """Which engines are asked, in which order."""

    engines: tuple[Annotated[Local | Searxng | Brave | Json, Field(discriminator="kind")], ...] = (Local(),)
    """Asked one after the other until one answers."""
    timeout_seconds: float = Field(5.0, gt=0)
    """How long an attempt may take; one that failed in passing is made a second time."""


class Documents(Protocol):
    """What finds passages: a store, or a search that is fused with one (`phases.agent.dense`)."""

    def search(self, query: str, limit: int = 3) -> list[Passage]:
        """The best passages."""
        ...


class LocalSearch:
    """The agent's documents as an engine."""

    name = "local"

    def __init__(self, store: Documents) -> None:
        self.store = store

    def search(self, query: str, limit: int) -> list[Hit]:
        """The best passages; their addresses are `store:<document>#<chunk>`."""
        try:
            found = self.store.search(query, limit)
        except CheckpointError as error:
            raise SearchUnavailable(str(error)) from None
        return [Hit(one.title, f"store:{one.document}#{one.chunk}", one.text) for one in found]


def open_providers(config: SearchConfig, store: Documents | None) -> Sequence[SearchProvider]:
    """The engines of a config; the local one only where there are documents."""
    # Imported here: httpx is for those who have a service.
    from phases.agent.http_search import HttpSearch

    engines: list[SearchProvider] = []
    for engine in config.engines:
        if isinstance(engine, Local):
            engines += [LocalSearch(store)] if store is not None else []
        else:
            engines.append(HttpSearch(engine, config.timeout_seconds))
    return engines
