"""A search service that means harm: it never ends, repeats the key, sends what cannot be written down."""

import contextlib
import json
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from phases.agent import http_search
from phases.agent.http_search import MOST_BYTES, HttpSearch
from phases.agent.search import Brave, Hit, SearchUnavailable, Searxng
from phases.agent.tool import ToolContext, built_in

KEY = "sesame-0452"
Answer = Callable[[BaseHTTPRequestHandler], Any]


class Service(HTTPServer):
    """Gives one answer to everybody."""

    answer: Answer
    written = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Asked(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):  # the client may be gone
            self.server.answer(self)

    def log_message(self, *_: Any) -> None:
        """Silent."""


def says(body: Any, status: int = 200, **headers: str) -> Answer:
    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        for name, value in headers.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    return answer


def endless(to: Any) -> None:
    says(b"")(to)
    while to.server.written < 20 * MOST_BYTES:
        to.server.written += to.wfile.write(b" " * 65536)


def no_http(to: BaseHTTPRequestHandler) -> None:
    to.wfile.write(f"{KEY}\r\n\r\n".encode())


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(http_search, "RETRY_SECONDS", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("BRAVE_API_KEY", KEY)
    with Service(("127.0.0.1", 0), Asked) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def found(service: Service, body: Any) -> list[Hit]:
    service.answer = says(body)
    return HttpSearch(Searxng(kind="searxng", url=service.url), 5).search("sea", 3)


def test_an_answer_without_end_is_not_read_to_it(service: Service) -> None:
    service.answer = endless
    with pytest.raises(SearchUnavailable, match="more than 2,000,000 bytes"):
        HttpSearch(Searxng(kind="searxng", url=service.url), 30).search("sea", 3)
    assert service.written < 10 * MOST_BYTES


@pytest.mark.parametrize(
    "answer",
    [
        says(KEY, 401),
        says(KEY, 500),
        says(b"", 302, Location=f"/?key={KEY}"),
        says(f"<p>{KEY}</p>".encode()),
        says([KEY]),
        says({"web": {"results": KEY}}),
        says({"web": {"results": [{"name": KEY}]}}),
        no_http,
    ],
    ids=range(8),
)
def test_a_service_that_repeats_the_key_does_not_bring_it_into_the_traceback(service: Service, answer: Answer) -> None:
    service.answer = answer
    with pytest.raises(SearchUnavailable) as caught:
        HttpSearch(Brave(kind="brave", url=service.url), 5).search("sea", 3)
    assert KEY not in "".join(traceback.format_exception(caught.value)) and "\n" not in str(caught.value)


def test_hits_can_be_written_down(service: Service) -> None:
    body = rb'{"results": [{"title": "half \ud800", "url": "u\u0000", "content": "a\u2028b"}]}'
    assert found(service, body) == [Hit("half \ufffd", "u\ufffd", "a b")]


def test_numbers_and_names_of_characters_are_text(service: Service) -> None:
    body = {"results": [{"title": 1.5, "url": None, "content": "salt &amp; &#x1F600;"}, {"title": " "}, 7]}
    assert found(service, body) == [Hit("1.5", "", "salt & 😀")]


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".example", "xn--", "127.0.0.1:1/\0"])
@pytest.mark.usefixtures("service")
def test_an_impossible_address_is_one_line(host: str) -> None:
    with pytest.raises(SearchUnavailable, match=r"^[^\n]+ cannot be asked \(\w+\)$"):
        HttpSearch(Searxng(kind="searxng", url=f"http://{host}"), 5).search("sea", 1)


@pytest.mark.parametrize("title", ["A", "long " * 60, "t" * 300])
@pytest.mark.parametrize("address", ["http://a", "http://" + "a" * 73, "http://" + "a" * 500])
def test_a_line_keeps_to_its_length(service: Service, title: str, address: str) -> None:
    service.answer = says({"results": [{"title": title, "url": address, "content": "words of it " * 40}]})
    engine = HttpSearch(Searxng(kind="searxng", url=service.url), 5)
    line = built_in("search").run({"query": "sea"}, ToolContext(search=[engine]))
    assert 30 < len(line) <= 160
    assert line.startswith("1. " + title[:30].strip()) and ": words of it" in line
    assert line.endswith(f" ({address})") == (len(address) <= 80)
