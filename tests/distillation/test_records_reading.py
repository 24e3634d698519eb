"""Files of every kind and schema, and everything that can be wrong with them."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from distillation.record import Message
from distillation.records.normal import clean
from distillation.records.reading import ReadRecords, RecordSource, read_records, read_source, records_of
from distillation.records.rows import LONGEST_CELL, stream_rows
from distillation.records.schema import Columns
from phases.errors import DataError

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]


def jsonl(tmp_path: Path, *rows: Any, raw: bytes = b"") -> Path:
    path = tmp_path / "data.jsonl"
    path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode() + raw)
    return path


def read(path: Path, **settings: Any) -> ReadRecords:
    source = RecordSource(paths=(str(path),), **settings)
    return read_records(path, path.with_name("quarantine.jsonl"), source)


@pytest.mark.parametrize(
    ("row", "schema", "prompt", "completion"),
    [
        ({"messages": [*CHAT, {"role": "assistant", "content": "4"}]}, "messages", "2 + 2?", "4"),
        ({"messages": CHAT}, "messages", "2 + 2?", ""),
        ({"prompt": "a", "completion": "b"}, "prompt", "a", "b"),
        ({"prompt": "a", "response": "b"}, "prompt", "a", "b"),
        ({"prompt": "a"}, "prompt", "a", ""),
        ({"prompt": CHAT, "completion": "4"}, "prompt", "2 + 2?", "4"),
        ({"instruction": "Sort", "input": "b a", "output": "a b"}, "instruction", "Sort\n\nb a", "a b"),
        ({"instruction": "Sort", "input": "", "output": "a"}, "instruction", "Sort", "a"),
        ({"question": "q", "answer": "yes"}, "question", "q", "yes"),
    ],
)
def test_the_four_schemas(tmp_path: Path, row: dict[str, Any], schema: str, prompt: str, completion: str) -> None:
    found = read(jsonl(tmp_path, row))
    assert (found.schema, found.records[0].prompt, found.records[0].completion) == (schema, prompt, completion)
    assert found.rejected == []
    assert not (tmp_path / "quarantine.jsonl").exists()


def test_worked_steps_and_the_answer_are_told_apart(tmp_path: Path) -> None:
    record = read(jsonl(tmp_path, {"question": "q", "answer": "3 * 4 = 12 #### 12"})).records[0]
    assert (record.rationale, record.reference, record.completion) == ("3 * 4 = 12", "12", "3 * 4 = 12 #### 12")


def test_optional_columns_and_what_nothing_reads(tmp_path: Path) -> None:
    row = {"prompt": "p", "group": "tax", "reference": "r", "rationale": "s", "weight": "2.5", "edge": "yes"}
    record = read(jsonl(tmp_path, {**row, "licence": "MIT", "ticket": 7, "none": None}), group="other").records[0]
    assert (record.group, record.reference, record.rationale, record.weight) == ("tax", "r", "s", 2.5)
    assert (record.edge, record.licence, record.source, record.more) == (True, "MIT", "data.jsonl:1", {"ticket": "7"})


def test_own_names_of_columns(tmp_path: Path) -> None:
    columns = Columns(prompt="frage", completion="antwort", system="rolle", group="thema")
    row = {"frage": "Wie?", "antwort": "So.", "rolle": "Kurz.", "thema": "x", "prompt": "other"}
    record = read(jsonl(tmp_path, row), columns=columns, licence="CC0-1.0").records[0]
    assert record.messages == (Message("system", "Kurz."), Message("user", "Wie?"))
    assert (record.completion, record.group, record.licence, record.more) == (
        "So.",
        "x",
        "CC0-1.0",
        {"prompt": "other"},
    )


def test_the_three_kinds_of_file_give_the_same_records(tmp_path: Path) -> None:
    rows = [{"prompt": 'a "b",\nc', "completion": "é"}, {"prompt": "d", "completion": "e"}]
    with (tmp_path / "data.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"])
        writer.writeheader()
        writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data.parquet")
    jsonl(tmp_path, *rows)
    keys = [[r.key for r in read(tmp_path / f"data.{kind}").records] for kind in ("jsonl", "csv", "parquet")]
    assert keys[0] == keys[1] == keys[2]


def test_a_conversation_in_a_cell_and_in_parquet(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"messages": CHAT}]), tmp_path / "data.parquet")
    (tmp_path / "data.csv").write_text('messages\n"' + json.dumps(CHAT).replace('"', '""') + '"\n')
    assert read(tmp_path / "data.csv").records[0].messages == read(tmp_path / "data.parquet").records[0].messages


BAD = [
    (b"{broken\n", "not JSON"),
    (b"[1, 2]\n", "not a JSON object"),
    (b'{"prompt": "\xff"}\n', "not UTF-8 at byte 12"),
    (b'{"prompt": "\\ud800"}\n', "half of a surrogate pair"),
    (b"[" * 200_000 + b"\n", "nested too deeply"),
    (b'{"prompt": "  "}\n', "empty prompt"),
    (b'{"prompt": null}\n', "empty prompt"),
    (b'{"completion": "x"}\n', "no column 'prompt'"),
    (b'{"prompt": {"a": 1}}\n', "column 'prompt' is not a text"),
    (b'{"prompt": []}\n', "not a user's turn"),
    (b'{"prompt": [{"role": "tool", "content": "x"}]}\n', "a message needs a role"),
    (b'{"prompt": "x", "weight": "heavy"}\n', "weight 'heavy' is not a number"),
    (b'{"prompt": "x", "weight": -1}\n', "of at least 0"),
    (b'{"prompt": "x", "weight": NaN}\n', "of at least 0"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line_is_set_aside_with_its_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    found = read(jsonl(tmp_path, {"prompt": "good"}, raw=line))
    written = [json.loads(row) for row in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert len(found.records) == 1
    assert reason in found.rejected[0].reason
    assert found.reasons == {found.rejected[0].reason: 1}
    assert [(w["file"], w["line"], w["reason"]) for w in written] == [("data.jsonl", 2, found.rejected[0].reason)]


def test_bad_csv_rows(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b'prompt,completion\na,b\nonly one\n\n\xff,b\nc,"d"x\ne,f\n"never closed\ng,h\n')
    found = read(path)
    assert [r.prompt for r in found.records] == ["a", "e"]
    assert [(r.line, r.reason.split("(")[0].strip()) for r in found.rejected] == [
        (3, "1 cells where the header has 2"),
        (5, "not UTF-8"),
        (6, "not CSV"),
        (8, "not CSV"),
    ]


def test_the_limit_of_a_cell_is_set_back(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = tmp_path / "data.csv"
    path.write_text("prompt\n" + "x" * (before + 1) + "\n")
    assert len(read(path).records[0].prompt) == before + 1 < LONGEST_CELL
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "no usable record: it is empty"),
        ("a.csv", b"prompt,completion\n", "no usable record: it is empty"),
        ("a.jsonl", b"{}\nx\n", r"no usable record; 2 rejected, first: line 1: no known columns"),
        ("a.jsonl", b'{"text": "x", "id": 1}\n', r"no column of 'messages', .*; it has: id, text; name the question's"),
        ("a.csv", b"text;prompt\nx;y\n", "it has: text;prompt"),
        ("a.txt", b"x", "unknown kind .txt"),
        ("a.parquet", b"PAR1 not really", "not readable as Parquet"),
    ],
)
def test_files_without_a_record(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize("last", [b"{}\nx\n", b'{"text": "x"}\n', b'{"prompt": ""}\n'])
def test_what_is_rejected_is_set_aside_before_a_file_without_a_record_is_refused(tmp_path: Path, last: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "good"}\nbroken\n')
    (tmp_path / "b.jsonl").write_bytes(last)
    quarantine = tmp_path / "out" / "q.jsonl"
    with pytest.raises(DataError, match=f"b.jsonl: no .*; rejected rows are in {re.escape(str(quarantine))}$"):
        read_source(RecordSource(paths=(str(tmp_path / "*.jsonl"),)), quarantine)
    written = [json.loads(row) for row in quarantine.read_text().splitlines()]
    assert [(w["file"], w["line"]) for w in written] == [
        ("a.jsonl", 2),
        *(("b.jsonl", i + 1) for i in range(last.count(b"\n"))),
    ]


def test_missing_files_and_own_columns_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no such file"):
        stream_rows(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"no column 'q', which columns.prompt names; it has: prompt"):
        read(jsonl(tmp_path, {"prompt": "x"}), columns=Columns(prompt="q"))


def test_several_files_by_pattern(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"question": "2"}\n')
    (tmp_path / "a.jsonl").write_text('{"prompt": "1"}\nx\n')
    found = read_source(RecordSource(paths=(str(tmp_path / "*.jsonl"),)), tmp_path / "out" / "q.json")
    assert ([r.source for r in found.records], found.schema) == (["a.jsonl:1", "b.jsonl:1"], "prompt,question")
    assert len((tmp_path / "out" / "q.json").read_text().splitlines()) == len(found.rejected) == 1


def test_rows_that_came_over_an_api() -> None:
    found = records_of([{"prompt": "a", "completion": "b"}, {"prompt": ""}], "push")
    assert (found.records[0].source, found.reasons) == ("push:1", {"empty prompt": 1})


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("e\u0301", "é"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\ufeffa\x00\u200bb\x1b[0m", "ab[0m"),
        ("\n\n    indented \n ", "    indented"),
        ("👩\u200d💻 می\u200cخواهم", "👩\u200d💻 می\u200cخواهم"),
        ("abc\u202etxt", "abctxt"),
    ],
)
def test_one_spelling(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned == clean(cleaned)
