"""A night with a teacher behind an endpoint and own questions: who taught, and what neither teacher nor report sees."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from distillation.night.workshop import SEALED
from distillation.project.portfolio import open_projects
from flows.distill_flow import distill
from flows.distill_parameters import ProjectConfig
from flows.distill_report import DATABASE
from flows.parameters import ForgeConfig


class Teaching(BaseHTTPRequestHandler):
    """Answers with one word, and remembers what it was asked."""

    heard: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        type(self).heard.append(body)
        choice = {"message": {"role": "assistant", "content": "stone"}, "finish_reason": "stop"}
        answer = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    Teaching.heard.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Teaching)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def project(copy: ForgeConfig, address: str, tmp_path: Path) -> ProjectConfig:
    """Sixty questions of one's own, each with an address."""
    rows = [{"prompt": f"Who is user{i}@example.org of house {i}?", "reference": "stone"} for i in range(60)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {
        "project": "p",
        "out": str(copy.out),
        "teachers": [{"kind": "endpoint", "base_url": address, "model": "m", "licence": "own"}],
        "data": {"run": None, "files": [{"paths": [str(tmp_path / "own.jsonl")]}]},
        "curation": {"quality": {"threshold": 0}, "near_duplicates": None},
        "ask": {"max_tokens": 4},
        "distil": {
            "student": {"kind": "checkpoint", "path": str(copy.out / "t" / "cognate")},
            "strategy": {"kind": "response"},
            "training": {"steps": 2, "batch_rows": 2, "precision": "fp32"},
            "block_tokens": 48,
        },
        "exam": {"max_tokens": 4, "probe_items": 2, "robustness": None, "safety": None, "bias": None},
        "gate": {"resamples": 1000},
        "runner": "threads",
        "plan": {"enabled": False},
    }
    return ProjectConfig.parse(settings, "test")


def test_a_sealed_address_reaches_neither_the_teacher_nor_the_report(project: ProjectConfig, address: str) -> None:
    state = distill(project, return_state=True)
    if state.is_failed():
        state.result()
    said = [json.loads(body)["messages"][-1]["content"] for body in Teaching.heard]
    assert any("[EMAIL]" in text for text in said) and not any("example.org" in text for text in said)
    night = project.folder / "night-0001"
    for path in (night / "report.json", night / "report.md", project.folder / SEALED):
        assert b"example.org" not in path.read_bytes()
    opened = open_projects(project.out / DATABASE).open("p")
    (student,) = opened.students()
    assert student.teachers == (f"{address} m",) and opened.teacher_digest == f"{address} m"
