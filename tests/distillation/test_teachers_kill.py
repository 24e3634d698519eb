"""Killed at random points: what was received and stored is never asked again. And a real server, slowly."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.record import Message
from distillation.teachers.collect import collect
from distillation.teachers.endpoint import EndpointTeacher, EndpointTeacherConfig
from distillation.teachers.local import LocalTeacher, LocalTeacherConfig
from distillation.teachers.store import INTERRUPTED, CaptureStore
from distillation.teachers.teacher import Answer, Ask
from phases.agent.template import CHAT_TEMPLATE
from phases.checkpoint import Manifest, save_checkpoint
from phases.data.tokenizer import train_tokenizer

QUESTIONS = 60
JSON = {"content-type": "application/json"}
PROGRAM = """
import sys
from pathlib import Path
from distillation.record import Message
from distillation.teachers.collect import collect
from distillation.teachers.collect import collect
from distillation.teachers.endpoint import EndpointTeacher, EndpointTeacherConfig
from distillation.teachers.store import CaptureStore
from distillation.teachers.teacher import Ask

url, path, questions = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
teacher = EndpointTeacher.open(EndpointTeacherConfig(base_url=url, model="m", concurrency=4))
with CaptureStore(path) as store:
    done = collect(teacher, [Ask((Message("user", f"q{i}"),)) for i in range(questions)], store)
assert len(done.answers) == questions, done
"""


class Answering(BaseHTTPRequestHandler):
    """Says what it was asked, after a moment, and counts."""

    asked: ClassVar[Counter[str]] = Counter()
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][-1]["content"]
        time.sleep(0.02)
        type(self).asked[question] += 1
        message = {"message": {"role": "assistant", "content": question.upper()}, "finish_reason": "stop"}
        body = json.dumps({"choices": [message], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # whoever asked is dead

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Connections of the dead."""

    Answering.asked.clear()
    server = Server(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def stored(path: Path) -> set[str]:
    with CaptureStore(path) as store:
        return {record.prompt for record in store.records()}


def run_and_kill(address: str, path: Path, requests: int, seconds: float) -> int:
    """Runs until so many requests more were answered, and some moments on; then kills. The exit status."""
    until = Answering.asked.total() + requests
    command = [sys.executable, "-c", PROGRAM, address, str(path), str(QUESTIONS)]
    with subprocess.Popen(command, start_new_session=True) as child:
        while child.poll() is None and Answering.asked.total() < until:
            time.sleep(0.001)
        time.sleep(seconds)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
        return child.wait()


def test_what_was_stored_is_never_asked_again(address: str, tmp_path: Path) -> None:
    path, draw, kills, before = tmp_path / "captures.sqlite", random.Random(5), 0, Counter[str]()
    paid: set[str] = set()
    while run_and_kill(address, path, draw.randint(1, 12) if kills < 4 else QUESTIONS * 9, draw.uniform(0, 0.03)) != 0:
        kills += 1
        again = {question for question in paid if Answering.asked[question] != before[question]}
        assert not again, f"asked again though stored: {again}"
        paid, before = stored(path), Counter(Answering.asked)
    assert kills == 4 and stored(path) == {f"q{i}" for i in range(QUESTIONS)}
    assert all(Answering.asked[question] == before[question] for question in paid)
    with CaptureStore(path) as store:
        lost = sum(attempt.count for attempt in store.attempts() if attempt.reason == INTERRUPTED)
    # what was answered and not stored was under way when somebody died: at most four at a time
    assert Answering.asked.total() - QUESTIONS <= lost <= 4 * kills


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    tokenizer = train_tokenizer(["a"], 260)
    tokenizer.chat_template = CHAT_TEMPLATE
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "max_position_embeddings": 256}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **ends, intermediate_size=64, tie_word_embeddings=True))
    return save_checkpoint(tmp_path_factory.mktemp("served") / "tiny", model, tokenizer, Manifest("cognate")).path


def serving(command: list[str], port: int, health: str) -> Iterator[str]:
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        ends = time.monotonic() + 240
        while True:
            assert child.poll() is None, f"{command[0]} ended with {child.returncode}"
            assert time.monotonic() < ends, f"{command[0]} does not answer"
            try:
                httpx.get(f"http://127.0.0.1:{port}{health}", timeout=1).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        child.terminate()
        child.wait(timeout=60)


class Faulty(BaseHTTPRequestHandler):
    """Stands before a real server: of the first requests some are refused, cut off, or put off; the others go on."""

    server_url: ClassVar[str] = ""
    seen: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        fault = ("503", "429", "cut", "")[len(self.seen)] if len(self.seen) < 4 else ""
        self.seen.append(fault)
        if fault == "cut":
            self.send_response(200)
            self.send_header("content-length", "500")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
            return
        if fault:
            status, said = int(fault), b"{}"
        else:
            answer = httpx.post(
                f"{self.server_url}{self.path.removeprefix('/v1')}", content=body, headers=JSON, timeout=120
            )
            status, said = answer.status_code, answer.content
        self.send_response(status)
        self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("faults", [False, True])
def test_a_real_server_answers_as_the_model_does_here(tiny: Path, tmp_path: Path, faults: bool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("transformers"))
    command = [program, "serve", str(tiny), "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    asks = [Ask((Message("user", f"hello {i}"),), max_tokens=8) for i in range(5)]
    local = dict(LocalTeacher(LocalTeacherConfig(checkpoint=tiny, licence="own")).answer(asks))
    for url in serving(command, port, "/health"):
        Faulty.server_url, Faulty.seen = url, []
        proxy = ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        asked = f"http://127.0.0.1:{proxy.server_port}/v1" if faults else url
        config = EndpointTeacherConfig(
            base_url=asked, model=str(tiny), concurrency=2, request_seconds=120, backoff_seconds=0.05
        )
        with CaptureStore(tmp_path / "answers.sqlite") as store:
            served = collect(EndpointTeacher.open(config), asks, store).answers
            heard = len(Faulty.seen)
            again = collect(EndpointTeacher.open(config), asks, store)
        proxy.shutdown()
        proxy.server_close()
        assert again.from_store == 5 and len(Faulty.seen) == heard == (8 if faults else 0)
    for index, mine in local.items():
        theirs = served[index]
        assert isinstance(mine, Answer), mine
        assert (theirs.text.strip(), theirs.prompt_tokens) == (mine.text, mine.prompt_tokens)
