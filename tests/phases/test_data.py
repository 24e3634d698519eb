"""From sources to packed rows: nothing lost, nothing leaked, and clear words for data that cannot be used."""

from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.data.leakage import check_leakage, leaking_passages, overlaps
from phases.data.pack import ANSWER, PADDING, PROMPT, byte_lengths, pack_items, pack_text
from phases.data.sources import Document, Embedded, Files, Hub, read_source
from phases.data.split import cut, passages_of, split_by_hash
from phases.data.tokenizer import train_tokenizer
from phases.errors import DataError, LeakageError
from phases.tasks.item import Item, extract_answer, render_completion, render_prompt

TEXT = "The quick brown fox jumps over the lazy dog 1234 times. Ünïcödé 漢字 🙂\n\n" * 3
WORDS = [f"word{i}" for i in range(400)]


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return train_tokenizer([TEXT * 20, "def function(self, value): return value\n" * 50], 300)


def files(*paths: Path, **more: str) -> Files:
    return Files(kind="files", paths=tuple(map(str, paths)), **more)  # type: ignore[arg-type]


# --- sources


def test_embedded_text_is_english_and_python_within_its_budget() -> None:
    documents = read_source(Embedded(max_bytes=1_500_000))
    assert {d.source for d in documents} == {"python-topics", "python-docstrings", "python-library"}
    assert sum(len(d.text.encode()) for d in documents) <= 1_500_000
    assert any("Return the next item from the iterator" in d.text for d in documents)
    assert documents == read_source(Embedded(max_bytes=1_500_000))


def test_the_users_files_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain text")
    (tmp_path / "b.jsonl").write_text('{"body": "line one"}\n{"body": "line two"}\n')
    pandas.DataFrame({"body": ["from csv, quoted"]}).to_csv(tmp_path / "c.csv")
    pandas.DataFrame({"body": ["from parquet"]}).to_parquet(tmp_path / "d.parquet")
    documents = read_source(files(tmp_path / "*.*", text_column="body", licence="CC0"))
    assert [d.text for d in documents] == ["plain text", "line one", "line two", "from csv, quoted", "from parquet"]
    assert {d.licence for d in documents} == {"CC0"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt: empty; give a file with text"),
        ("a.txt", b"good \xff bad", "a.txt: not UTF-8 at byte 5; convert it"),
        ("a.jsonl", b"", "a.jsonl: empty; give a file with text"),
        ("a.jsonl", b'{"other": 1}\n', "no column 'text'; it has: other"),
        ("a.jsonl", b'{"text": ', "a.jsonl: line 1 is not JSON"),
        ("a.csv", b"a,b\n\xe9,1\n", "a.csv: not UTF-8 at byte 4"),
        ("a.parquet", b"PAR1 not really", "a.parquet: not readable as Parquet"),
        ("a.docx", b"x", "unknown kind .docx; rows come from .jsonl, .csv or .parquet, running text from .txt"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_source(files(tmp_path / name))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_an_unreachable_hub_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere.txt: no such file"):
        read_source(files(tmp_path / "nowhere.txt"))
    with pytest.raises(DataError, match="hub data set no/such: .*check name and network"):
        read_source(Hub(kind="hub", name="no/such"))


# --- split


@given(st.text(max_size=400), st.integers(10, 120))
@settings(max_examples=60, deadline=None)
def test_cutting_loses_nothing(text: str, size: int) -> None:
    assert "".join(cut(text, size)) == text


def test_cut_prefers_blank_lines() -> None:
    assert cut("a" * 30 + "\n\n" + "b" * 30, 40) == ["a" * 30 + "\n\n", "b" * 30]


def test_splits_are_disjoint_stable_and_near_their_shares() -> None:
    documents = [Document(f"text number {i} " * 9, "s", "l") for i in range(3000)]
    passages, _ = passages_of(documents, 2000)
    first = split_by_hash(passages, 0.1, 0.1)
    again = split_by_hash(passages[::-1][:2000], 0.1, 0.1)
    assert {p.text for p in again["test"]} <= {p.text for p in first["test"]}
    assert len({p.text for split in first.values() for p in split}) == 3000
    assert 240 < len(first["test"]) < 360 and 240 < len(first["validation"]) < 360


def test_repeats_are_kept_once() -> None:
    passages, repeated = passages_of([Document("Same  text", "a", ""), Document("same\ntext", "b", "")], 100)
    assert len(passages) == 1 and repeated == 1


# --- leakage


def slow_overlap(held: str, training: list[str], n: int) -> float:
    def grams(text: str) -> list[tuple[str, ...]]:
        words = text.casefold().split()
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    known = {g for text in training for g in grams(text)}
    own = grams(held)
    return sum(g in known for g in own) / len(own) if own else 0.0


def test_overlap_equals_the_obvious_computation() -> None:
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(["a", "b", "c"], size=40)) for _ in range(12)]
    shares = overlaps(texts[:4], texts[4:], 4)
    assert shares.tolist() == pytest.approx([slow_overlap(t, texts[4:], 4) for t in texts[:4]])
    assert 0 < shares.mean() < 1


def test_a_planted_leak_is_found_removed_and_refused() -> None:
    held = " ".join(WORDS[:60])
    training = [" ".join(WORDS[100:200]), "intro " + " ".join(WORDS[20:60]), " ".join(WORDS[200:300])]
    assert leaking_passages([held], training, 13, 0.1) == {1}
    with pytest.raises(LeakageError, match="1 held-out passages stand in training text.*58%.*decontaminate"):
        check_leakage([held], training, 13, 0.1)
    assert check_leakage([held], [training[0], training[2]], 13, 0.1) == 0


def test_short_texts_leak_as_a_whole() -> None:
    assert overlaps(["four words stand here"], ["so: four words, stand here!"], 13).tolist() == [1.0]
    assert overlaps(["four words stand here"], ["four words stand there"], 13).tolist() == [0.0]
    assert overlaps(["one two"], ["one two"], 13).tolist() == [0.0]
    assert leaking_passages(["four words stand here"], ["x", "yes, four words stand here"], 13, 0.1) == {1}


# --- tokenizer


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_tokenizer_round_trip_is_exact(tokenizer, text: str) -> None:  # type: ignore[no-untyped-def]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_are_single_tokens(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert len(tokenizer("1234")["input_ids"]) == 4


def test_chat_template(tokenizer) -> None:  # type: ignore[no-untyped-def]
    item = Item(task="t", speciality="reasoning", prompt="1+1", answer="2", steps="1+1=2")
    assert render_prompt(tokenizer, item.prompt) == "<|user|>1+1<|assistant|>"
    assert render_completion(tokenizer, item) == "1+1=2 #### 2<|endoftext|>"
    assert extract_answer("1+1=2 #### 2\nmore") == "2" and extract_answer(" 2 ") == "2"


def test_a_vocabulary_that_the_text_does_not_support_is_refused() -> None:
    with pytest.raises(DataError, match=r"vocabulary=5,000 is larger than the data supports \(\d+\); set"):
        train_tokenizer(["a few words only, a few words"], 5000)


# --- packing


@given(st.lists(st.text(min_size=1, max_size=50), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_byte_is_counted_once(tokenizer, texts: list[str]) -> None:  # type: ignore[no-untyped-def]
    for text in texts:
        encoded = tokenizer(text, return_offsets_mapping=True)
        sizes = byte_lengths(text, [end for _, end in encoded["offset_mapping"]])
        assert sizes.sum() == len(text.encode()) and (sizes >= 0).all()


def test_rows_continue_each_other_and_count_their_bytes(tokenizer) -> None:  # type: ignore[no-untyped-def]
    packed = pack_text(tokenizer, [TEXT, TEXT[5:]], 16)
    assert (packed.tokens_NT[1:, 0] == packed.tokens_NT[:-1, -1]).all()
    line = [*packed.tokens_NT[:, :-1].reshape(-1), packed.tokens_NT[-1, -1]]
    expected = [0, *tokenizer(TEXT)["input_ids"], 0, *tokenizer(TEXT[5:])["input_ids"]]
    assert line == expected[: len(line)] and len(expected) - len(line) < 16
    whole = len((TEXT + TEXT[5:]).encode())
    assert 0 <= whole - packed.bytes_N.sum() < 16 * 20


def test_items_are_packed_whole_with_their_masks(tokenizer) -> None:  # type: ignore[no-untyped-def]
    items = [Item(task="t", speciality="memory", prompt=f"{i}+1", answer=str(i + 1)) for i in range(9)]
    packed = pack_items(tokenizer, items, 16)
    shown = [tokenizer.decode(row[mask != PADDING]) for row, mask in zip(packed.tokens_NT, packed.mask_NT, strict=True)]
    expected = [f"<|user|>{i}+1<|assistant|>{i + 1}<|endoftext|>" for i in range(9)]
    assert "".join(shown) == "".join(expected) and all(text.endswith("<|endoftext|>") for text in shown)
    answers = tokenizer.decode(packed.tokens_NT[packed.mask_NT == ANSWER])
    assert answers == "".join(f"{i + 1}<|endoftext|>" for i in range(9))
    assert (packed.tokens_NT[packed.mask_NT == PADDING] == tokenizer.eos_token_id).all()
    assert (packed.mask_NT == PROMPT).any()


def test_control_tokens_in_text_are_text(tokenizer) -> None:  # type: ignore[no-untyped-def]
    packed = pack_text(tokenizer, ["say <|user|> and <|endoftext|> to it " * 4], 8)
    assert (packed.tokens_NT[:, 1:] > 3).all()
    assert "<|user|>" in tokenizer.decode(packed.tokens_NT.reshape(-1))


def test_one_empty_file_among_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").write_text(" ")
    with pytest.raises(DataError, match="b.txt: empty"):
        read_source(files(tmp_path / "*.txt"))


def test_an_item_longer_than_a_row_is_left_out(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert not len(
        pack_items(tokenizer, [Item(task="t", speciality="memory", prompt="x" * 90, answer="1")], 16).bytes_N
    )
