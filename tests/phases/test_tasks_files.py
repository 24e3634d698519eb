"""The user's own task files, and everything that can be wrong with one."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from phases.dataset import SPLITS
from phases.errors import DataError
from phases.tasks.files import TaskFile, file_items

GSM8K = Path(__file__).parents[2].parent / "shared" / "data" / "text" / "gsm8k_train.jsonl"
ROWS = [{"question": f"{a}+{b}", "answer": f"{a}+{b}={a + b}\n#### {a + b}"} for a in range(12) for b in range(12)]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        lines = [",".join(f'"{value}"' for value in row.values()) for row in [dict.fromkeys(rows[0], ""), *rows]]
        path.write_text("\n".join([",".join(rows[0]), *lines[1:]]) + "\n")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_kinds_agree(tmp_path: Path, kind: str) -> None:
    items = file_items(TaskFile(path=str(write(tmp_path / f"sums.{kind}", ROWS))))
    every = [item for split in SPLITS for item in items[split]]
    assert {(i.prompt, i.steps, i.answer) for i in every} == {
        (r["question"], *r["answer"].split("\n#### ")) for r in ROWS
    }
    assert {(i.task, i.speciality, i.difficulty) for i in every} == {("sums", "reasoning", 1)}


def test_split_by_content_not_by_place(tmp_path: Path) -> None:
    file = TaskFile(path=str(write(tmp_path / "a.jsonl", ROWS)), validation_share=0.2, test_share=0.2, name="t")
    back = TaskFile(
        path=str(write(tmp_path / "b.jsonl", ROWS[::-1] + ROWS[:9])), validation_share=0.2, test_share=0.2, name="t"
    )
    items, reversed_items = file_items(file), file_items(back)
    for split, low, high in (("train", 65, 108), ("validation", 14, 44), ("test", 14, 44)):
        assert low < len(items[split]) < high
        assert {i.key for i in items[split]} == {i.key for i in reversed_items[split]}
        assert len(items[split]) == len(reversed_items[split])  # the nine repeats are left out


def test_own_columns_name_and_plain_answers(tmp_path: Path) -> None:
    rows = [{"q": f"key {n}?", "a": str(n)} for n in range(100)]
    path = write(tmp_path / "x.jsonl", rows)
    items = file_items(TaskFile(path=str(path), prompt="q", answer="a", name="keys", speciality="memory"))
    assert all(i.answer in i.prompt and not i.steps and i.completion == i.answer for i in items["train"])
    assert {(i.task, i.speciality) for i in items["train"]} == {("keys", "memory")}


def test_a_zero_is_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "zero.jsonl"
    path.write_text("".join(json.dumps({"question": f"0*{n}", "answer": 0}) + "\n" for n in range(100)))
    assert {item.answer for item in file_items(TaskFile(path=str(path)))["test"]} == {"0"}


BAD = {
    "no such file": ("no.jsonl", None, "no such file; give an existing path"),
    "kind": ("a.xlsx", b"x", "unknown kind .xlsx; rows come from .jsonl"),
    "empty": ("a.jsonl", b"", "empty; give a file with rows"),
    "header only": ("a.csv", b"question,answer\n", "empty; give a file with rows"),
    "not utf-8": ("a.jsonl", b'{"question": "\xff"}', "not UTF-8 at byte 14"),
    "not json": ("a.jsonl", b'{"question": "1", "answer": "1"}\n{oops\n', "line 2 is not JSON"),
    "not an object": ("a.jsonl", b"[1]\n", "line 1 is not a JSON object"),
    "column": ("a.jsonl", b'{"q": "1", "text": "1"}\n', "line 1 has no column 'question'; it has: q, text"),
    "csv column": ("a.csv", b"question,reply\n1,2\n", "line 2 has no column 'answer'; it has: question, reply"),
    "no answer": ("a.jsonl", b'{"question": "1", "answer": "steps ####"}\n', "line 1 has an empty question or answer"),
    "null": ("a.jsonl", b'{"question": "1", "answer": null}\n', "line 1 has an empty question or answer"),
    "short csv row": ("a.csv", b"question,answer\n1\n", "line 2 has an empty question or answer"),
    "open quote": ("a.csv", b'question,answer\n"1,2\n', "line 2 is not CSV"),
    "not parquet": ("a.parquet", b"question", "not readable as Parquet"),
    "few rows": ("a.jsonl", b'{"question": "1", "answer": "1"}\n', "1 distinct rows leave the"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_get_one_line(tmp_path: Path, case: str) -> None:
    name, content, message = BAD[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        file_items(TaskFile(path=str(tmp_path / name)))
    assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.skipif(not GSM8K.is_file(), reason="needs GSM8K at ../shared/data/text/gsm8k_train.jsonl")
def test_gsm8k() -> None:
    items = file_items(TaskFile(path=str(GSM8K), name="gsm8k"))
    every = [item for split in SPLITS for item in items[split]]
    rows = len(GSM8K.read_text(encoding="utf-8").splitlines())
    assert 0.99 * rows <= len(every) <= rows
    assert 0.03 < len(items["test"]) / rows < 0.07
    assert all(item.answer.replace(",", "").lstrip("-").isdigit() and "####" not in item.steps for item in every)
    assert sum(item.difficulty >= 2 for item in every) > 0.9 * rows
