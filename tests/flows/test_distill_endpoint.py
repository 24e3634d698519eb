"""Nights with a teacher behind an endpoint, on a server of this machine: texts are all that comes from there."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from prefect.client.schemas.objects import State

from evaluation.report import read_report
from flows.distill_flow import distill
from flows.distill_parameters import ProjectConfig
from flows.parameters import ForgeConfig
from phases.errors import ConfigError, DataError, InputError

WORDS = ["cat", "dog", "owl", "fox", "hen", "elk", "ant", "bee", "cow", "pig"]
QUESTIONS = [f"Which animal is number {i} of the {word} list {i * 7}?" for i, word in enumerate(WORDS * 4)]


class Server:
    """Answers with an animal; down while it is told to be."""

    def __init__(self) -> None:
        self.down = False
        self.heard: list[str] = []
        self.app = FastAPI()

        @self.app.post("/v1/chat/completions")
        async def complete(request: Request) -> dict[str, Any]:
            question = (await request.json())["messages"][-1]["content"]
            if self.down:
                raise HTTPException(503)
            self.heard.append(question)
            said = {"role": "assistant", "content": WORDS[len(question) % len(WORDS)]}
            usage = {"prompt_tokens": 9, "completion_tokens": 1}
            return {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": usage}


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    one = Server()
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        config = uvicorn.Config(one.app, log_level="critical", ws="none", timeout_graceful_shutdown=1)
        served = uvicorn.Server(config)
        thread = threading.Thread(target=served.run, args=([port],))
        thread.start()
        while not served.started:
            time.sleep(0.005)
        yield one, f"http://127.0.0.1:{port.getsockname()[1]}/v1"
        served.should_exit = True
        thread.join()


def project(copy: ForgeConfig, url: str, lines: list[dict[str, str]], **changes: Any) -> ProjectConfig:
    file = copy.out / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    quick = {"backoff_seconds": 0.01, "longest_wait_seconds": 0.02, "attempts": 2, "breaker_failures": 2}
    impatient = {"breaker_pause_seconds": 0.01, "breaker_probes": 1}
    price = {"usd_per_million_in": 2.0, "usd_per_million_out": 8.0}
    teacher = {"kind": "endpoint", "base_url": url, "model": "m", "licence": "own", "price": price}
    settings = {
        "project": "p",
        "out": str(copy.out),
        "runner": "threads",
        "teachers": [{**teacher, **quick, **impatient}],
        "data": {"run": None, "files": [{"paths": [str(file)]}], "test_share": 0.4, "validation_share": 0.2},
        "curation": {"quality": {"threshold": 0}, "near_duplicates": None},
        "distil": {
            "strategy": {"kind": "response"},
            "student": {"kind": "checkpoint", "path": str(copy.out / "t" / "cognate")},
            "training": {"steps": 3, "batch_rows": 4, "precision": "fp32"},
        },
        "exam": {"max_tokens": 4, "probe_items": 3},
        "gate": {"resamples": 1000},
        "ask": {"max_tokens": 4},
        "money": {"requests_per_month": 1000},
    }
    return ProjectConfig.parse({**settings, **changes}, "test")


def run(config: ProjectConfig) -> State[Any]:
    state: State[Any] = distill(config, return_state=True)
    if state.is_failed():
        state.result()
    return state


def test_questions_alone_become_a_student_and_a_control_without_a_teacher(
    copy: ForgeConfig, server: tuple[Server, str]
) -> None:
    one, url = server
    config = project(copy, url, [{"prompt": question} for question in QUESTIONS])
    assert run(config).name in ("NotEnoughData", "RolledBack")
    assert len(one.heard) == len(set(one.heard))
    (phase,) = read_report(config.folder / "night-0001").phases
    (control,) = phase.controls
    assert "as it is" in control.budget and control.metric == "answers"
    assert phase.tables["data"].rows[0][0] == "version"
    heard = len(one.heard)
    assert run(config).name == "NothingNew" and len(one.heard) == heard


@pytest.mark.slow
def test_right_answers_make_a_control_that_learns_them(copy: ForgeConfig, server: tuple[Server, str]) -> None:
    _, url = server
    lines = [{"prompt": question, "reference": WORDS[i % len(WORDS)]} for i, question in enumerate(QUESTIONS)]
    config = project(copy, url, lines)
    assert run(config).name in ("NotEnoughData", "RolledBack")
    folder = config.folder / "night-0001"
    (phase,) = read_report(folder).phases
    assert {control.budget for control in phase.controls} == {
        "same initial student and steps, same rates; answers that one has without the teacher"
    }
    digests = [json.loads((folder / name / "forge.json").read_text())["digest"] for name in ("student", "baseline")]
    assert digests[0] != digests[1]


@pytest.mark.slow
def test_a_teacher_that_is_down_costs_no_training(copy: ForgeConfig, server: tuple[Server, str]) -> None:
    one, url = server
    config = project(copy, url, [{"prompt": question, "completion": "cat"} for question in QUESTIONS])
    one.down = True
    with pytest.raises(InputError, match="questions of the test have no answer .* run the night again"):
        run(config)
    assert not (config.folder / "night-0001" / "student").exists()
    one.down = False
    assert run(config).name in ("NotEnoughData", "RolledBack")


def test_what_cannot_be_learnt_is_said_before_anybody_is_asked(copy: ForgeConfig, server: tuple[Server, str]) -> None:
    one, url = server
    config = project(copy, url, [{"prompt": question} for question in QUESTIONS])
    logits = config.distil.model_copy(update={"strategy": ProjectConfig().distil.strategy})
    with pytest.raises(ConfigError, match="no endpoint gives"):
        run(config.model_copy(update={"distil": logits}))
    second = config.teachers[0].model_copy(update={"name": "other"})
    with pytest.raises(DataError, match="none has; give some, or name one teacher"):
        run(config.model_copy(update={"teachers": (*config.teachers, second)}))
    assert one.heard == []
