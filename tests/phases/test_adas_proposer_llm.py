"""Proposals of a language model, by a real server on this machine that does all that a service may do wrong."""

import json
import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from phases.adas import endpoint
from phases.adas.archive import Archive, Scores
from phases.adas.genome import PARENT, Genome
from phases.adas.proposer_llm import ModelSettings, read_design
from phases.adas.search import SearchConfig, search
from phases.adas.space import Proposal, Space
from phases.adas.technique import Technique
from phases.errors import CheckpointError, ConfigError

KEY = "sesame-0453"
POOL = {
    f"g{g} t{i}": Technique(
        name=f"g{g} t{i}", group=f"g{g}", says=f"does {g}{i}", patch={"decoding": {"temperature": 1.0 + i}}
    )
    for g in range(6)
    for i in range(3)
}
SPACE = Space(POOL, (), 3, 0.1, 2.0)


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's `answers` say, the last one from then on."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def say(self, body, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Quietly."""


class Server(ThreadingHTTPServer):
    """A server on a free port."""

    daemon_threads = False  # closing waits for all requests

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.answers = [], []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_):
        """A client that hangs up is expected here."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(endpoint, "BACKOFF_SECONDS", 0.001)
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def said(text):
    return lambda handler: handler.say(json.dumps({"choices": [{"message": {"content": text}}]}).encode())


def design(*names, thought="why not"):
    return said(json.dumps({"thought": thought, "techniques": names}))


def status(code, **headers):
    return lambda handler: handler.say(b"sorry " + KEY.encode(), code, **headers)


def raw(body):
    return lambda handler: handler.say(body)


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def counting():
    """A different design every time: pairs of techniques, in order."""
    names = sorted(POOL)
    pairs = iter([(a, b) for a in names for b in names if a[:2] < b[:2]])
    return lambda handler: design(*next(pairs))(handler)


def evaluate(genomes, rung):
    values = [0.5 + 0.02 * sum(name.endswith("t1") for name in genome.techniques) for genome in genomes]
    return [Scores(quality={"x": value, "y": 0.5}, n={"x": 5, "y": 5}, work=1.0) for value in values]


def run(server, path=None, seed=0, **settings):
    proposer = ModelSettings(**{"base_url": server.url, "model": "m", "timeout_seconds": 5, **settings})
    config = SearchConfig(iterations=3, population=4, rungs=(5, 10), max_techniques=3, proposer=proposer)
    return search(POOL, (), evaluate, config, seed, Archive(path))


def later(found):
    """Candidates after the first iteration."""
    return [record for record in found.archive.on(0) if record.iteration > 0]


# What is asked, and what becomes of the answer


def test_the_model_proposes_its_share_and_evolution_the_rest(server):
    server.answers = [counting()]
    found = run(server)
    operators = [record.origin.operator for record in later(found)]
    assert operators.count("model") == 4 and [o == "model" for o in operators] == [True, True, False, False] * 2
    assert len(server.asked) == 4 and found.fallbacks == {}
    record = later(found)[0]
    assert record.genome == Genome(techniques=("g0 t0", "g1 t0")) and record.origin.thought == "why not"


def test_it_is_told_the_pool_and_what_was_best_and_worst(server):
    server.answers = [counting()]
    found = run(server, temperature=0.7)
    path, headers, body = server.asked[-1]
    assert path == "/v1/chat/completions" and "Authorization" not in headers
    assert body["model"] == "m" and body["temperature"] == 0.7
    system, user = (message["content"] for message in body["messages"])
    assert all(f'"{name}" (does {name[1]}{name[4]})' in system for name in POOL) and "3 at most" in system
    ordered = [r for r in found.archive.ordered if r.iteration < 2]
    assert "The agent as it is:\n- the parent: fitness 0.500, work 1.00 (x 0.500 of 5, y 0.500 of 5)" in user
    assert user.index(ordered[0].genome.describe()) < user.index("Worst designs")
    assert "Also being tried now:\n- " in user


def test_what_is_not_asked_for_is_not_sent(server):
    server.answers = [counting()]
    run(server)
    assert set(server.asked[0][2]) == {"model", "messages"}


@pytest.mark.parametrize(
    "answer",
    [
        '{"thought": "t", "techniques": ["g0 t0", "g1 t1"]}',
        'Sure!\n```json\n{"thought": "t", "techniques": ["g0 t0", "g1 t1"]}\n```\nGood luck.',
        '<think>{maybe {"a": 1}</think> {"thought": "t", "techniques": [" G0  T0", "g1 t1", "g1 t1"], "more": 1}',
    ],
)
def test_a_design_is_found_in_whatever_stands_around_it(answer):
    found = read_design(answer, SPACE, set())
    assert isinstance(found, Proposal) and found.genome == Genome(techniques=("g0 t0", "g1 t1"))
    assert found.origin.operator == "model" and found.origin.thought == "t"


NO_USE = [
    ("I would rather not.", "no design in the answer"),
    ("", "no design in the answer"),
    ("{" * 20_000, "no design in the answer"),
    ('{"techniques": ' + "[" * 19_000, "no design in the answer"),
    ('{"techniques": "g0 t0"}', "no design in the answer"),
    ('{"techniques": ["g0 t0", 7]}', "no design in the answer"),
    ('{"techniques": ["g0 t0", "magic"]}', "unknown technique"),
    ('{"techniques": ["g0 t0", "g0 t1"]}', "two of one group"),
    ('{"techniques": ["g0 t0", "g1 t0", "g2 t0", "g3 t0"]}', "too many techniques"),
    ('{"techniques": []}', "repeated"),
]


@pytest.mark.parametrize(("answer", "reason"), NO_USE, ids=range(len(NO_USE)))
def test_an_answer_of_no_use_says_what_is_wrong(answer, reason):
    assert read_design(answer, SPACE, {PARENT.key}) == reason


def test_evolution_proposes_instead_and_that_is_counted(server):
    server.answers = [said("no"), design("g0 t0", "g1 t0"), design("g0 t0", "g1 t0"), design("magic")]
    found = run(server)
    assert found.fallbacks == {"no design in the answer": 1, "repeated": 1, "unknown technique": 1}
    assert len(later(found)) == 8 and len(server.asked) == 4
    instead = [record for record in later(found) if record.origin.fallback]
    assert all(record.origin.operator not in ("model", "random") for record in instead)


def test_a_long_thought_that_cannot_be_written_down_is_cut_and_cleaned(server, tmp_path):
    server.answers = [design("g0 t0", "g1 t0", thought="\ud800\0" + "x" * 5000), said("no")]
    run(server, tmp_path / "a.jsonl")
    (thought,) = (r.origin.thought for r in Archive(tmp_path / "a.jsonl")._recorded if r.origin.thought and r.rung == 0)
    assert len(thought) == 1000 and thought.startswith("\ufffd\ufffdx")


# The service fails


@pytest.mark.parametrize("fault", [status(500), status(503), status(429), hang_up])
def test_what_may_pass_is_tried_twice_more(server, fault):
    server.answers = [fault, fault, counting()]
    assert run(server).fallbacks == {}
    assert len(server.asked) == 2 + 4


@pytest.mark.parametrize(
    ("fault", "reason", "attempts"),
    [
        (status(500), "answers 500", 3),
        (hang_up, "cannot be reached", 3),
        (status(401), "answers 401", 1),
        (status(302, Location="http://127.0.0.1:1/"), "answers 302", 1),
        (raw(b"<html>"), "answers without a text", 1),
        (raw(b"[" * 100_000), "answers without a text", 1),
        (raw(b'{"choices": []}'), "answers without a text", 1),
        (raw(b'{"choices": [{"message": {"content": null}}]}'), "answers without a text", 1),
        (raw(b" " * (endpoint.MOST_BYTES + 1)), "answers too much", 1),
    ],
)
def test_after_failures_in_a_row_it_is_given_up_until_the_next_iteration(server, fault, reason, attempts):
    server.answers = [fault]
    found = run(server, share=1.0)
    assert found.fallbacks == {reason: 4, "given up": 4}
    assert len(server.asked) == 4 * attempts  # three questions in one iteration, one in the next


def test_a_slow_answer_is_given_up(server):
    over = threading.Event()

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.02):
            handler.wfile.write(b" ")

    service = ModelSettings(base_url=server.url, model="m", timeout_seconds=0.1)
    for slow in (drip, lambda _: over.wait(20)):
        server.answers = [slow]
        start = time.monotonic()
        with pytest.raises(endpoint.NoAnswer, match="^too slow$"):
            service.ask([], "")
        assert time.monotonic() - start < 5
    over.set()
    assert len(server.asked) == 6


@pytest.mark.usefixtures("server")
def test_nobody_there_is_no_reason_to_stop():
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port, and nobody answers
        taken.bind(("127.0.0.1", 0))
        service = ModelSettings(base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1", model="m")
        with pytest.raises(endpoint.NoAnswer, match="^cannot be reached$"):
            service.ask([], "")


# The key


def test_the_key_is_sent_and_is_nowhere_else(server, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)
    server.answers = [status(401), design("g0 t0", "g1 t0", thought=f"the key is {KEY}"), hang_up]
    found = run(server, tmp_path / "a.jsonl", key_variable="MY_KEY")
    assert {headers["Authorization"] for _, headers, _ in server.asked} == {f"Bearer {KEY}"}
    files = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "the key is (key)" in files and len(list(tmp_path.iterdir())) == 2
    assert KEY not in files + caplog.text + str(found.fallbacks)


@pytest.mark.parametrize("key", [None, "", "no\nkey", "schlüssel"])
def test_a_missing_key_is_said_before_anything_is_played(server, monkeypatch, key):
    monkeypatch.delenv("MY_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(ConfigError, match="^proposer: no key; set the environment variable MY_KEY"):
        run(server, key_variable="MY_KEY")
    assert server.asked == []


@pytest.mark.parametrize("wrong", [{"base_url": "http://user:secret@x"}, {"base_url": "ftp://x"}, {"key": KEY}])
def test_wrong_settings_are_one_line(wrong):
    with pytest.raises(ConfigError, match=r"^proposer: [^\n]+$"):
        ModelSettings.parse({"base_url": "http://x", "model": "m", **wrong}, "proposer")


# Going on


def test_killed_anywhere_it_asks_nothing_twice_and_ends_with_the_same_bytes(server, tmp_path):
    """At any line of either file, as they are written: the exchange before the candidates that came of it."""
    faults = [said("no"), design("g0 t0", "g1 t0"), status(401), design("g2 t0", "g3 t0")]
    server.answers = [*faults, faults[-1]]
    run(server, tmp_path / "whole.jsonl")
    archive, exchange = ((tmp_path / f"whole.{end}").read_bytes() for end in ("jsonl", "exchange.jsonl"))
    lines, asked = archive.splitlines(keepends=True), exchange.splitlines(keepends=True)
    assert len(asked) == len(faults)
    for kept in range(0, len(lines) + 1, 3):
        iterations = {json.loads(line)["iteration"] for line in lines[:kept]}
        for told in range(2 * max(iterations, default=0), len(asked) + 1):
            (tmp_path / "torn.jsonl").write_bytes(b"".join(lines[:kept]) + b'{"id"')
            (tmp_path / "torn.exchange.jsonl").write_bytes(b"".join(asked[:told]) + b'{"dig')
            server.asked.clear()
            server.answers = [*faults[told:], faults[-1]]
            run(server, tmp_path / "torn.jsonl")
            assert len(server.asked) == len(asked) - told
            assert (tmp_path / "torn.jsonl").read_bytes() == archive
            assert (tmp_path / "torn.exchange.jsonl").read_bytes() == exchange


def test_an_exchange_of_another_search_is_refused(server, tmp_path):
    server.answers = [counting()]
    run(server, tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(CheckpointError, match="request 0 is not of this search; delete it and the archive"):
        run(server, tmp_path / "a.jsonl", seed=1)
    (tmp_path / "a.exchange.jsonl").write_text('{"what": 1}\n')
    with pytest.raises(CheckpointError, match="a line is not a record"):
        run(server, tmp_path / "b.jsonl") and run(server, tmp_path / "a.jsonl", seed=1)


def test_a_model_that_knows_the_answer_is_worth_having(server):
    """The whole loop: what the model proposes is played, and wins where it is good."""
    server.answers = [design("g0 t1", "g1 t1", "g2 t1")]
    found = run(server)
    assert found.best.genome.techniques == ("g0 t1", "g1 t1", "g2 t1") and found.best.origin.operator == "model"
    assert np.isclose(found.best.fitness, 0.53) and found.fallbacks == {"repeated": 3}
