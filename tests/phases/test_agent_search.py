"""Search engines against a real server on this machine that does all that a service may do wrong."""

import gzip
import json
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from phases.agent import http_search
from phases.agent.documents import Document, DocumentStore, build_store
from phases.agent.http_search import HttpSearch
from phases.agent.search import Brave, Hit, Json, LocalSearch, SearchConfig, SearchUnavailable, Searxng, open_providers
from phases.agent.tool import ToolContext, ToolError, built_in
from phases.errors import ConfigError

KEY = "sesame-0451"
FOUND = {"results": [{"title": f"T{n}", "url": f"http://x/{n}", "content": f"text {n}"} for n in range(5)]}
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's `answers` say, the last one from then on."""

    server: "Service"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def say(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quietly."""


class Service(ThreadingHTTPServer):
    """A server on a free port."""

    daemon_threads = False  # closing waits for all requests

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: list[Answer] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is expected here."""


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.say(b"sorry", code, headers)


def body(value: Any) -> Answer:
    return lambda handler: handler.say(value if isinstance(value, bytes) else json.dumps(value).encode())


def hang_up(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def half(handler: Handler) -> None:
    handler.say(b"{", headers={"Content-Length": "100"})
    hang_up(handler)


def compressed(handler: Handler) -> None:
    """Though it was not asked for."""
    handler.say(gzip.compress(json.dumps(FOUND).encode()), headers={"Content-Encoding": "gzip"})


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(http_search, "RETRY_SECONDS", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def searxng(url: str, timeout_seconds: float = 5.0) -> HttpSearch:
    return HttpSearch(Searxng(kind="searxng", url=url), timeout_seconds)


def reason(engine: HttpSearch, query: str = "q") -> str:
    with pytest.raises(SearchUnavailable) as caught:
        engine.search(query, 3)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DocumentStore]:
    with build_store(tmp_path / "d.sqlite", [Document("Town", "Red.\n\n\nThe river."), Document("Sea", "Salt.")]) as it:
        yield it


# What is asked, and what is made of the answer


def test_searxng_is_asked_for_json(service: Service) -> None:
    service.answers = [body(FOUND)]
    assert searxng(service.url + "/").search("a&b=c é?", 2) == [
        Hit("T0", "http://x/0", "text 0"),
        Hit("T1", "http://x/1", "text 1"),
    ]
    path, headers = service.asked[0]
    assert urlsplit(path).path == "/search"
    assert parse_qs(urlsplit(path).query) == {"q": ["a&b=c é?"], "format": ["json"]}
    assert headers["Accept-Encoding"] == "identity"


def test_brave_gets_the_key_in_a_header(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    hits = [{"title": "A", "url": "u", "description": "it&#x27;s"}]
    service.answers = [body({"web": {"results": hits}}), body({"query": {}})]
    engine = HttpSearch(Brave(kind="brave", url=service.url, key_variable="MY_KEY"), 5)
    assert engine.search("x", 3) == [Hit("A", "u", "it's")]
    assert engine.search("x", 3) == []  # no `web`: nothing was found
    path, headers = service.asked[0]
    assert headers["X-Subscription-Token"] == KEY and KEY not in path


def test_any_json_is_read_by_its_paths(service: Service) -> None:
    answer = {"data": [{"items": [{"n": {"t": 7}, "l": ["no", "u"], "s": "two\nlines"}, {"n": 1}, "odd"]}]}
    service.answers = [body(answer), body(FOUND["results"])]
    config = {"kind": "json", "url": service.url + "/find/{query}?n=3", "title": "n.t", "link": "l.1", "text": "s"}
    engine = HttpSearch(Json.parse({**config, "hits": "data.0.items"}, "search"), 5)
    assert engine.search("a/b c", 3) == [Hit("7", "u", "two lines")]
    assert service.asked[0][0] == "/find/a%2Fb%20c?n=3"
    plain = HttpSearch(Json.parse({"kind": "json", "url": config["url"], "hits": ""}, "search"), 5)
    assert len(plain.search("q", 9)) == 5


@pytest.mark.parametrize("query", ["", "\ud800 \0 \n 😀", "x" * 1_000_000, "{query}%s&format=html#"])
def test_any_text_may_be_asked_for(service: Service, query: str) -> None:
    service.answers = [body(FOUND)]
    json_engine = HttpSearch(Json(kind="json", url=service.url + "/?x={query}"), 5)
    for engine in (searxng(service.url), json_engine):
        assert len(engine.search(query, 3)) == 3
    sent = [parse_qs(urlsplit(path).query, keep_blank_values=True) for path, _ in service.asked]
    assert sent[0]["q"] == sent[1]["x"] == [query[:400].encode("utf-8", "replace").decode()]


# What goes wrong


@pytest.mark.parametrize("fault", [status(500), status(503), status(429), hang_up, half])
def test_what_may_pass_is_tried_once_more(service: Service, fault: Answer) -> None:
    service.answers = [fault, body(FOUND)]
    assert len(searxng(service.url).search("q", 3)) == 3
    service.answers = [fault]
    assert "127.0.0.1" in reason(searxng(service.url))
    assert len(service.asked) == 4


WRONG = [
    (status(500), "answers 500"),
    (status(429), "answers 429: asked too often"),
    (hang_up, "broke off its answer"),
    (status(401), "answers 401: the key is not accepted"),
    (status(404), "answers 404: nothing is at that address; check `url`"),
    (status(204), "answers 204"),
    (body(b"<html>"), "answers with something that is not JSON"),
    (body(b"\xff\xfe\x00"), "answers with something that is not JSON"),
    (body(b"[" * 200_000), "answers with something that is not JSON"),
    (compressed, "answers with something that is not JSON"),
    (body({"error": "no"}), "answers without a list at 'results'"),
    (body([1, 2]), "answers without a list at 'results'"),
    (body({"results": ["a", {"name": "b"}, None]}), "answers with hits without a text at 'title'"),
    (body({"results": [{"title": {"x": 1}}]}), "answers with hits without a text at 'title'"),
    (body(b" " * 2_000_001), "answers with more than 2,000,000 bytes"),
]


@pytest.mark.parametrize(("fault", "said"), WRONG, ids=range(len(WRONG)))
def test_what_goes_wrong_is_said(service: Service, fault: Answer, said: str) -> None:
    service.answers = [fault]
    assert reason(searxng(service.url)) == f"127.0.0.1:{service.server_port} {said}"


@pytest.mark.parametrize("elsewhere", ["file:///etc/passwd", "ftp://x/", "http://127.0.0.1:1/", "/again"])
def test_nobody_is_followed_elsewhere(service: Service, elsewhere: str) -> None:
    service.answers = [status(302, Location=elsewhere)]
    assert "answers 302: it sends elsewhere; set `url`" in reason(searxng(service.url))
    assert len(service.asked) == 1


def test_a_slow_answer_is_given_up(service: Service) -> None:
    over = threading.Event()

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.02):
            handler.wfile.write(b" ")

    def wait(_: Handler) -> None:
        over.wait(20)

    for slow in (drip, wait):
        service.answers = [slow]
        start = time.monotonic()
        assert reason(searxng(service.url, 0.2)).endswith("did not answer in 0.2 s")
        assert time.monotonic() - start < 5
    over.set()
    assert len(service.asked) == 2  # who is slow is not asked again


@pytest.mark.usefixtures("service")
def test_offline_is_said() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port, and nobody answers
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        assert reason(searxng(f"http://{host}")) == f"offline: {host} cannot be reached"


def test_the_key_is_in_no_message_and_no_log(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = Brave(kind="brave", url=service.url)
    said = []
    for key, fault in [(KEY, status(401)), (KEY, hang_up), (KEY + "é", body({})), (KEY + "\nX: y", body({}))]:
        monkeypatch.setenv("BRAVE_API_KEY", key)
        service.answers = [fault]
        said.append(reason(HttpSearch(config, 5)))
    monkeypatch.delenv("BRAVE_API_KEY")
    assert reason(HttpSearch(config, 5)) == "no key; set the environment variable BRAVE_API_KEY"
    assert service.asked and "sesame" not in " ".join(said) + caplog.text + config.model_dump_json()


# The config


def test_by_default_only_the_documents_are_asked(store: DocumentStore) -> None:
    (engine,) = open_providers(SearchConfig(), store)
    assert engine.name == "local"
    assert engine.search("river", 3) == [Hit("Town", "store:0#1", "The river.")]
    assert list(open_providers(SearchConfig(), None)) == []


def test_engines_come_in_the_order_of_the_config(store: DocumentStore) -> None:
    engines = [{"kind": "searxng", "url": "https://s"}, {"kind": "local"}, {"kind": "brave"}]
    config = SearchConfig.parse({"engines": engines}, "search")
    assert [engine.name for engine in open_providers(config, store)] == ["searxng", "local", "brave"]
    assert SearchConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "engine",
    [
        {"kind": "google"},
        {"kind": "searxng"},
        *({"kind": "searxng", "url": url} for url in ("ftp://x", "http://", "http://[::1", "http://x:99999", "x")),
        {"kind": "searxng", "url": "http://user:secret@x"},
        {"kind": "brave", "key": KEY},
        *(
            {"kind": "json", "url": url}
            for url in ("http://x/", "http://{query}/", "http://x{query}", "http://x#{query}")
        ),
    ],
)
def test_a_wrong_engine_is_one_line(engine: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^search: [^\n]+$"):
        SearchConfig.parse({"engines": [engine]}, "search")


# The tool


def ask(*engines: Any) -> str:
    return built_in("search").run({"query": "river"}, ToolContext(search=engines))


def test_the_tool_lists_hits_one_a_line(service: Service) -> None:
    long = {"title": "t " * 99, "url": "http://x/" + "p" * 50, "content": "word\n" * 99}
    service.answers = [body({"results": [long, {"title": "B"}, {"title": "C"}]})]
    first, second = ask(searxng(service.url)).split("\n")
    assert first.startswith("1. t t") and "t: word word" in first and first.endswith("p)") and len(first) <= 160
    assert second == "2. B"


def test_the_tool_asks_the_next_engine(service: Service, store: DocumentStore) -> None:
    for answer in (status(404), body({"results": []})):
        service.answers = [answer]
        assert ask(searxng(service.url), LocalSearch(store)) == "1. Town: The river. (store:0#1)"
    service.answers = [status(404), body({"results": []})]
    assert ask(searxng(service.url), searxng(service.url)) == "nothing found"


def test_the_tool_says_every_reason(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "damaged.sqlite"
    build_store(path, [Document("", "river")]).close()
    damage = sqlite3.connect(path, isolation_level=None)
    damage.execute("UPDATE documents SET body = x'00'")
    damage.close()
    service.answers = [status(404)]
    with DocumentStore(path) as store, pytest.raises(ToolError) as caught:
        ask(searxng(service.url), LocalSearch(store))
    said = str(caught.value)
    assert said.startswith(f"search: offline (searxng: 127.0.0.1:{service.server_port} answers 404")
    assert "; local: " in said and "damaged" in said and "\n" not in said
    with pytest.raises(ToolError, match=r"^search: no engine here$"):
        ask()
