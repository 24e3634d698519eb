"""`prepare_data` end to end: embedded text, the user's files, real data where it is present, and bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phases.data.config import DataConfig
from phases.data.prepare import prepare_data
from phases.dataset import Dataset, open_dataset
from phases.errors import ConfigError, DataError, InputError, LeakageError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "text"
FEW_TASKS: dict[str, Any] = {
    "reasoning": [{"name": "gcd", "params": {"min_value": 2, "max_value": 60}}],
    "reasoning_train_items": 200,
    "memory_train_items": 200,
    "copying": {"words": 3},
    "copying_train_items": 100,
    "validation_items": 20,
    "test_items": 20,
    "choice_items": 8,
}
SMALL: dict[str, Any] = {
    "sources": [{"kind": "embedded", "max_bytes": 700_000}],
    "tasks": FEW_TASKS,
    "vocabulary": 600,
    "block_tokens": 128,
    "validation_share": 0.1,
    "test_share": 0.1,
}
NO_TASKS = {**FEW_TASKS, "reasoning": [], "memory_train_items": 0, "validation_items": 0, "test_items": 0}
NO_TASKS |= {"copying_train_items": 0, "choice_items": 0}


def config(**changes: Any) -> DataConfig:
    return DataConfig.parse({**SMALL, **changes}, "data")


def own(path: Path, text: str, **changes: Any) -> DataConfig:
    path.write_text(text, encoding="utf-8")
    return config(sources=[{"kind": "files", "paths": [str(path)]}], tasks=NO_TASKS, **changes)


def prose(start: int, count: int) -> str:
    """Distinct paragraphs of made-up but regular words."""
    generator = np.random.default_rng(start)
    words = [f"{a}{b}{c}" for a in ("ka", "lo", "mi") for b in ("ra", "te", "su") for c in ("n", "l", "sh")]
    return "\n\n".join(" ".join(generator.choice(words, 60)) for _ in range(count))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare_data(config(), None, tmp_path_factory.mktemp("p") / "data")


def test_the_layout_is_complete(made: Dataset) -> None:
    for split in ("train", "validation", "test"):
        assert made.streams(split) == ["copying", "memory", "reasoning", "text"]  # type: ignore[arg-type]
        assert made.blocks(split, "text").shape[1] == 129  # type: ignore[arg-type]
        assert made.text_bytes(split).sum() > 0  # type: ignore[arg-type]
    assert len(made.tokenizer) == made.vocabulary == 600


def test_no_item_and_no_row_stands_in_two_splits(made: Dataset) -> None:
    keys = {s: {i.key for i in made.items(s)} for s in ("train", "validation", "test")}  # type: ignore[arg-type]
    assert not keys["train"] & keys["test"] and not keys["validation"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    rows = {s: {r.tobytes() for r in made.blocks(s, "text")} for s in ("train", "test")}  # type: ignore[arg-type]
    assert not rows["train"] & rows["test"]


def test_the_card_counts_true_tokens_and_names_licences(made: Dataset) -> None:
    sources = {s["name"]: s for s in made.card["sources"]}
    assert {"python-topics", "memory/recall", "reasoning/gcd"} <= sources.keys()
    assert sources["python-topics"]["licence"] == "PSF-2.0"
    assert made.card["leakage"]["worst_overlap_with_train"] <= 0.1
    text = sum(s["tokens"] for s in sources.values() if "passages" in s)
    packed = sum(made.blocks(s, "text")[:, 1:].size for s in ("train", "validation", "test"))  # type: ignore[arg-type]
    assert 0.95 * packed < text < 1.05 * packed


def test_the_same_config_is_not_prepared_twice_and_gives_the_same_digest(made: Dataset, tmp_path: Path) -> None:
    before = (made.path / "data.json").stat().st_mtime_ns
    assert prepare_data(config(), None, made.path).digest == made.digest
    assert (made.path / "data.json").stat().st_mtime_ns == before
    assert prepare_data(config(), None, tmp_path / "again").digest == made.digest
    assert prepare_data(config(seed=1), None, tmp_path / "other").digest != made.digest


def test_an_existing_tokenizer_is_kept(made: Dataset, tmp_path: Path) -> None:
    data = prepare_data(config(), str(made.path / "tokenizer"), tmp_path / "data")
    assert (data.path / "tokenizer/tokenizer.json").read_bytes() == (
        made.path / "tokenizer/tokenizer.json"
    ).read_bytes()


@pytest.mark.parametrize("name", ["data.json", "blocks/train.text.npy", "items/test.jsonl", "tokenizer/tokenizer.json"])
def test_altered_data_is_named(made: Dataset, tmp_path: Path, name: str) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(made.path, copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*altered"):
        open_dataset(copy)


def test_a_changed_file_is_prepared_again(tmp_path: Path) -> None:
    first = prepare_data(own(tmp_path / "a.txt", prose(0, 400), vocabulary=300), None, tmp_path / "d")
    second = prepare_data(own(tmp_path / "a.txt", prose(1, 400), vocabulary=300), None, tmp_path / "d")
    assert first.digest != second.digest


def bad(path: Path, case: str) -> DataConfig:
    """A config whose data cannot be used."""
    a, b = path / "a.txt", path / "b.txt"
    b.write_text(prose(9, 300))
    given = {"kind": "files", "paths": [str(b)]}
    if case == "one line":
        return own(a, "only one line of text")
    if case == "vocabulary":
        return own(a, prose(0, 400), vocabulary=5000)
    if case == "short test":
        return own(a, prose(0, 60), block_tokens=4096, vocabulary=300, passage_chars=1000)
    if case == "same file as test":
        return own(a, prose(9, 300), validation=[given], test=[given], decontaminate=False, vocabulary=300)
    if case == "tiny rows":
        recall = {"pairs": [8], "digits": 6}
        return config(block_tokens=32, tasks={**FEW_TASKS, "recall": recall, "needle": {"share": 0.0}})
    return own(a, prose(0, 400), test=[given])


@pytest.mark.parametrize(
    ("case", "kind", "message"),
    [
        ("one line", DataError, r"the \w+ split is empty \(\d passages in all\); add text"),
        ("vocabulary", DataError, "vocabulary=5,000 is larger than the data supports"),
        ("short test", DataError, "split has less text than one row|split is empty"),
        ("same file as test", LeakageError, "held-out passages stand in training text"),
        ("tiny rows", DataError, "no memory item of the train split fits a row of 32 tokens"),
        ("test without validation", ConfigError, "give validation and test together"),
    ],
)
def test_data_that_cannot_be_used(tmp_path: Path, case: str, kind: type[InputError], message: str) -> None:
    with pytest.raises(kind, match=message) as error:
        prepare_data(bad(tmp_path, case), None, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*out*"))


def test_wrong_keys_and_values_are_named() -> None:
    with pytest.raises(ConfigError, match="data: unknown key 'vocab'; allowed here: block_tokens"):
        DataConfig.parse({"vocab": 1}, "data")
    with pytest.raises(ConfigError, match="'vocabulary' = 3: Input should be greater than or equal to 260"):
        DataConfig.parse({"vocabulary": 3}, "data")
    with pytest.raises(ConfigError, match=r"sources.0.*'embedded', 'files', 'hub'"):
        DataConfig.parse({"sources": [{"kind": "web"}]}, "data")


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_wikitext_and_gsm8k(tmp_path: Path) -> None:
    tasks = {
        **NO_TASKS,
        "files": [
            {"path": str(SHARED / "gsm8k_train.jsonl"), "prompt": "question", "answer": "answer", "name": "gsm8k"}
        ],
    }
    source = {"kind": "files", "paths": [str(SHARED / "wikitext2_valid.txt")], "licence": "CC BY-SA"}
    data = prepare_data(config(sources=[source], tasks=tasks, vocabulary=2000, block_tokens=512), None, tmp_path / "d")
    sources = {s["name"]: s for s in data.card["sources"]}
    assert 250_000 < sources["wikitext2_valid.txt"]["tokens"] < 500_000
    items = [item for split in ("train", "validation", "test") for item in data.items(split)]  # type: ignore[arg-type]
    assert len(items) == 7473 and all(item.steps and item.answer for item in items)
    assert json.loads((data.path / "data.json").read_text())["removed"]["items_longer_than_a_row"] < 200
