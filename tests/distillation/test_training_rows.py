"""Packed rows: what is predicted, at which weight, in which order, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distillation.record import Message, Record, asked
from distillation.training.cached_rows import CachedRows, Part, pack_marks, read_marks
from distillation.training.row_file import RowFile, open_rows, tokenizer_digest
from distillation.training.rows import SHOW_STEPS, TextRows, from_dataset, pack_records, render_messages
from phases.data.tokenizer import train_tokenizer
from phases.dataset import Dataset, open_dataset, seal_dataset
from phases.errors import ConfigError, DataError
from phases.tasks.item import Item, render_completion

WIDTH = 48


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["a"], 260)  # bytes, and four special tokens


def sums(count: int, **rest: Any) -> list[Record]:
    return [asked(f"{i}+{7 * i}?", completion=str(8 * i), **rest) for i in range(count)]


def said(rows: RowFile, tokenizer: Any) -> list[str]:
    """What is predicted in each row, in the text's own words."""
    return [tokenizer.decode(t[1:][w > 0]) for t, w in zip(rows.tokens_NT, rows.weight_NT, strict=True)]


def test_exactly_completions_and_their_ends_are_predicted(tokenizer: Any, tmp_path: Path) -> None:
    records = sums(20)
    rows = pack_records(records, tokenizer, WIDTH, tmp_path / "rows")
    assert "".join(said(rows, tokenizer)) == "".join(f"{r.completion}<|endoftext|>" for r in records)
    assert rows.card["left_out"] == 0 and rows.card["predicted_tokens"] == (rows.weight_NT > 0).sum()


def test_the_first_token_of_a_completion_is_predicted_from_the_last_of_its_prompt(
    tokenizer: Any, tmp_path: Path
) -> None:
    rows = pack_records([asked("ab", completion="xyz")], tokenizer, WIDTH, tmp_path / "rows")
    start = len(tokenizer("<|user|>ab<|assistant|>", add_special_tokens=False)["input_ids"])
    assert np.flatnonzero(rows.weight_NT[0]).tolist() == [start - 1, start, start + 1, start + 2]
    assert tokenizer.decode(rows.tokens_NT[0, start - 1]) == "<|assistant|>"


def test_records_have_the_say_that_they_were_given(tokenizer: Any, tmp_path: Path) -> None:
    records = [asked("a", completion="x" * 20), asked("b", completion="y", weight=2.0), asked("c", completion="z" * 9)]
    rows = pack_records(records, tokenizer, WIDTH, tmp_path / "rows")
    say = np.array([rows.weight_NT[rows.example_NT == i].sum() for i in range(3)])
    np.testing.assert_allclose(say / say[0], [1, 2, 1], rtol=1e-6)
    assert rows.weight_NT.sum() == pytest.approx(len(rows), rel=1e-6)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_no_record_is_cut_or_lost(sizes: list[int], tokenizer: Any, tmp_path: Path) -> None:
    records = [asked("q", completion=chr(97 + i) * size) for i, size in enumerate(sizes)]
    fitting = [r for r in records if len(r.completion) <= WIDTH + 1 - 4]
    rows = pack_records(records, tokenizer, WIDTH, tmp_path / "rows")
    assert rows.card["left_out"] == len(records) - len(fitting)
    assert "".join(said(rows, tokenizer)) == "".join(f"{r.completion}<|endoftext|>" for r in fitting)
    per_row = [set(example[example >= 0]) for example in rows.example_NT]
    assert sum(map(len, per_row)) == len(set().union(*per_row)) == len(fitting)


def test_a_rationale_before_its_answer_is_what_task_items_have(tokenizer: Any, tmp_path: Path) -> None:
    record = asked("1+1+1?", completion="3", rationale="1+1 = 2, 2+1 = 3")
    rows = pack_records([record], tokenizer, WIDTH, tmp_path / "rows", rationale="before", rationale_weight=0.5)
    item = Item(task="t", speciality="reasoning", prompt="1+1+1?", answer="3", steps=record.rationale)
    whole = tokenizer(render_completion(tokenizer, item), add_special_tokens=False)["input_ids"]
    assert rows.tokens_NT[0, 1:][rows.weight_NT[0] > 0].tolist() == whole
    weight = rows.weight_NT[0][rows.weight_NT[0] > 0]
    steps = len(tokenizer(record.rationale, add_special_tokens=False)["input_ids"])
    assert weight[:steps].sum() == pytest.approx(1 / 3) and weight[steps:].sum() == pytest.approx(2 / 3)


def test_a_rationale_apart_is_asked_for(tokenizer: Any, tmp_path: Path) -> None:
    records = [asked("1+1?", completion="2", rationale="1, 2"), asked("2+2?", completion="4")]
    rows = pack_records(records, tokenizer, WIDTH, tmp_path / "rows", rationale="apart", rationale_weight=1.0)
    text = "".join(tokenizer.decode(row) for row in rows.tokens_NT)
    assert f"1+1?{SHOW_STEPS}<|assistant|>1, 2<|endoftext|>" in text and "<|assistant|>2<|endoftext|>" in text
    say = [rows.weight_NT[rows.example_NT == i].sum() for i in range(3)]
    assert say[0] == pytest.approx(say[1]) == pytest.approx(say[2] / 2)


def test_steps_by_step_loss_is_answer_plus_lambda_rationale(tokenizer: Any, tmp_path: Path) -> None:
    record = asked("1?", completion="2", rationale="three")
    rows = pack_records([record], tokenizer, WIDTH, tmp_path / "rows", rationale="apart", rationale_weight=0.25)
    nll = np.random.default_rng(0).random(rows.weight_NT.shape)
    answer, steps = (nll[rows.example_NT == i].mean() for i in range(2))
    expected = len(rows) * (answer + 0.25 * steps) / 1.25
    assert (nll * rows.weight_NT).sum() == pytest.approx(expected, rel=1e-6)


def test_conversations_render_as_the_tokenizer_has_them(tokenizer: Any) -> None:
    turns = (Message("system", "S"), Message("user", "U"), Message("assistant", "A"), Message("user", "V"))
    assert render_messages(tokenizer, turns) == "<|system|>S<|user|>U<|assistant|>A<|endoftext|><|user|>V<|assistant|>"
    plain = train_tokenizer(["a"], 260)
    plain.chat_template = None
    assert render_messages(plain, turns) == "S\nQuestion: U\nAnswer: A\nQuestion: V\nAnswer:"
    assert render_messages(plain, turns[1:2]) == "Question: U\nAnswer:"


def test_what_cannot_be_packed_is_named(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="f.jsonl:3: no completion"):
        pack_records([asked("a", source="f.jsonl:3")], tokenizer, WIDTH, tmp_path / "rows")
    with pytest.raises(DataError, match="no record fits a row of 4 tokens \\(the shortest has 6\\)"):
        pack_records([asked("a", completion="bc")], tokenizer, 4, tmp_path / "rows")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def data(tokenizer: Any, tmp_path: Path) -> Dataset:
    path = tmp_path / "data"
    (path / "blocks").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for stream in ("text", "copying"):
        tokens = generator.integers(4, 260, size=(9, WIDTH + 1)).astype(np.uint16)
        mask = np.ones_like(tokens, dtype=np.uint8)
        if stream == "copying":
            mask[:, :30], mask[:, 40:] = 0, 2
        np.save(path / "blocks" / f"train.{stream}.npy", tokens)
        np.save(path / "blocks" / f"train.{stream}.mask.npy", mask)
    tokenizer.save_pretrained(path / "tokenizer")
    seal_dataset(path, {"block_tokens": WIDTH, "vocabulary": 260})
    return open_dataset(path)


def test_text_joins_records(data: Dataset, tokenizer: Any, tmp_path: Path) -> None:
    text = from_dataset(data, {"text": 1, "copying": 1}, 6, 0)
    rows = pack_records(sums(8), tokenizer, WIDTH, tmp_path / "rows", text=text)
    own = len(rows) - 6
    assert rows.card["text_rows"] == 6 and (rows.example_NT[own:] == -1).all()
    np.testing.assert_array_equal(rows.tokens_NT[own:], text.tokens_NT)
    np.testing.assert_allclose(rows.weight_NT[own:].sum(1), 1, rtol=1e-6)
    counted = (rows.weight_NT[own:] > 0).sum(1)
    assert sorted(counted) == [10, 10, 10, WIDTH, WIDTH, WIDTH]  # of task items the answers alone
    assert (
        from_dataset(data, {"text": 1}, 6, 0).tokens_NT.tolist()
        != from_dataset(data, {"text": 1}, 6, 1).tokens_NT.tolist()
    )


def test_text_that_does_not_fit_in_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    other = TextRows(np.zeros((2, 33), np.uint16), np.ones((2, 32), np.float32), tokenizer_digest(tokenizer))
    with pytest.raises(ConfigError, match="set block_tokens=32"):
        pack_records(sums(3), tokenizer, WIDTH, tmp_path / "rows", text=other)
    foreign = TextRows(np.zeros((2, WIDTH + 1), np.uint16), np.ones((2, WIDTH), np.float32), "other")
    with pytest.raises(ConfigError, match="another tokenizer"):
        pack_records(sums(3), tokenizer, WIDTH, tmp_path / "rows", text=foreign)


def test_the_same_records_give_the_same_bytes(tokenizer: Any, tmp_path: Path) -> None:
    first, again = (pack_records(sums(9), tokenizer, WIDTH, tmp_path / name) for name in "ab")
    assert first.digest == again.digest != pack_records(sums(8), tokenizer, WIDTH, tmp_path / "c").digest


@pytest.mark.parametrize("name", ["tokens.npy", "weight.npy", "example.npy", "rows.json"])
def test_altered_rows_are_refused(name: str, tokenizer: Any, tmp_path: Path) -> None:
    pack_records(sums(9), tokenizer, WIDTH, tmp_path / "rows")
    raw = (tmp_path / "rows" / name).read_bytes()
    for broken in (raw[:-9], raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:], None):
        (tmp_path / "rows" / name).write_bytes(broken) if broken else (tmp_path / "rows" / name).unlink()
        with pytest.raises(DataError, match="rows"):
            open_rows(tmp_path / "rows")


def order(source: CachedRows, steps: Sequence[int], count: int) -> list[bytes]:
    return [row.numpy().tobytes() for step in steps for row in source.rows(step, count).tokens_BT]


def test_every_row_comes_once_an_epoch_as_a_function_of_the_step(tokenizer: Any, tmp_path: Path) -> None:
    parts = [Part(pack_records(sums(n), tokenizer, WIDTH, tmp_path / str(n))) for n in (30, 11)]
    source = CachedRows(parts, 3)
    count = len(source)
    assert count == sum(len(part.rows) for part in parts)
    first, second = (order(source, range(e * count, (e + 1) * count), 1) for e in (0, 1))
    every = [row.astype(np.int64).tobytes() for part in parts for row in part.rows.tokens_NT]
    assert sorted(first) == sorted(second) == sorted(every) and first != second
    assert order(CachedRows(parts, 3), [4], 2) == order(source, [4], 2) != order(CachedRows(parts, 4), [4], 2)
    assert source.rows(0, 2).marks_BTC is None


def test_parts_have_to_fit_together(tokenizer: Any, tmp_path: Path) -> None:
    parts = [Part(pack_records(sums(9), tokenizer, width, tmp_path / str(width))) for width in (32, 48)]
    with pytest.raises(ConfigError, match="row lengths or tokenizers"):
        CachedRows(parts, 0)


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.floats(0, 1, width=32)), min_size=1))
def test_marks_keep_ids_and_shares(pairs: list[tuple[int, float]]) -> None:
    ids, share = np.array([i for i, _ in pairs]), np.array([s for _, s in pairs], dtype=np.float32)
    found_ids, found_share = read_marks(torch.from_numpy(pack_marks(ids, share)))
    assert found_ids.tolist() == ids.tolist() and found_share.tolist() == share.tolist()


@pytest.mark.parametrize("form", ["before", "apart"])
def test_steps_and_answer_of_one_completion_are_taken_apart(form: Any, tokenizer: Any, tmp_path: Path) -> None:
    # As GSM8K has them, with and without the steps in a column of their own.
    whole = asked("1+1+1?", completion="1+1 = 2, 2+1 = 3 #### 3", reference="3")
    both, apart = (
        replace(whole, rationale="1+1 = 2, 2+1 = 3"),
        asked("1+1+1?", completion="3", rationale="1+1 = 2, 2+1 = 3"),
    )
    one, two, three = (
        pack_records([record], tokenizer, WIDTH, tmp_path / str(i), rationale=form)
        for i, record in enumerate((whole, both, apart))
    )
    assert one.digest == two.digest == three.digest
    heading = asked("a text", completion="#### Title\nA long text", rationale="")
    kept = pack_records([heading], tokenizer, WIDTH, tmp_path / "h", rationale=form)
    assert "Title" in tokenizer.decode(kept.tokens_NT[0])
