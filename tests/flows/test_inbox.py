"""Records and captured calls that come over HTTP."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from distillation.night.workshop import CAPTURES, INBOX, QUARANTINE
from distillation.records.folder import read_folder
from distillation.teachers.store import CaptureStore
from flows.cli import main
from flows.inbox import make_app
from flows.serving.door import Door

CALL = {
    "request": {"model": "m", "messages": [{"role": "user", "content": "What is 2 + 2?"}]},
    "response": {
        "choices": [{"message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1},
    },
}


def post(project: Path, path: str, body: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Door(make_app(project)))
        async with httpx.AsyncClient(transport=transport, base_url="http://inbox") as client:
            return await client.post(path, json=body)

    return asyncio.run(ask())


def test_pushed_records_are_kept_once_and_the_rest_is_named(tmp_path: Path) -> None:
    rows = [{"prompt": "a?", "completion": "b"}, {"prompt": "", "completion": "c"}]
    first = post(tmp_path, "/records", rows).json()
    assert (first["added"], first["known"]) == (1, 0)
    assert [one["row"] for one in first["rejected"]] == [2] and "empty" in first["rejected"][0]["reason"]
    assert post(tmp_path, "/records", rows).json()["known"] == 1
    assert [record.prompt for record in read_folder(tmp_path / INBOX)] == ["a?"]


def test_captured_calls_become_records(tmp_path: Path) -> None:
    body = {"teacher": "big", "licence": "own", "calls": [CALL, {"request": {}}]}
    told = post(tmp_path, "/captures", body).json()
    assert told["added"] == 1 and len(told["rejected"]) == 1
    with CaptureStore(tmp_path / CAPTURES) as store:
        (record,) = store.records()
    assert (record.prompt, record.completion, record.teacher) == ("What is 2 + 2?", "4", "big")


def set_aside(project: Path) -> list[dict[str, Any]]:
    (path,) = (project / QUARANTINE).glob("*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_was_rejected_is_set_aside_once_with_its_reason(tmp_path: Path) -> None:
    rows = [{"prompt": "a?"}, {"prompt": "", "completion": "ü"}]
    calls = {"teacher": "big", "licence": "own", "calls": [CALL, {"request": {"x": "y" * 999}}]}
    for _ in range(2):  # a sender whose answer got lost sends it again
        post(tmp_path, "/records", rows)
        post(tmp_path, "/captures", calls)
        post(tmp_path, "/records", [{"colour": "red"}])
    row, call, unknown = set_aside(tmp_path)
    assert (row["file"], row["line"]) == ("push", 2) and "empty" in row["reason"] and "ü" in row["content"]
    assert (call["file"], call["line"], len(call["content"])) == ("captures", 2, 300) and "response" in call["reason"]
    assert unknown["content"] == '{"colour": "red"}' and "no column of" in unknown["reason"]


def test_a_push_without_mistakes_sets_nothing_aside(tmp_path: Path) -> None:
    post(tmp_path, "/records", [{"prompt": "a?"}])
    assert not (tmp_path / QUARANTINE).exists()


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/records", [{"colour": "red"}], "colour"),
        ("/records", {"prompt": "a"}, "list"),
        ("/captures", {"calls": [CALL], "licence": "own"}, "teacher"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, path: str, body: Any, said: str) -> None:
    answer = post(tmp_path, path, body)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]


def test_port_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inbox", "p", "--out", str(tmp_path), "--port", "70000"]) == 2
    assert capsys.readouterr().err.startswith("forge: --port 70000: give a number")
