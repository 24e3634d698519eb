"""Vectors beside the documents: what stands in the file, what a failed build leaves, fusion against the paper."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from phases.agent.dense import DenseIndex, FusedSearch, Vectors, build_vectors
from phases.agent.documents import Document, DocumentStore, build_store
from phases.agent.search import LocalSearch
from phases.errors import CheckpointError, StorageError

WIDTH = 48
DEPTH = 50
WORDS = ["boat", "heron", "mud", "oar", "reed", "river", "rope", "sail", "salt", "sea", "tide", "wind"]


class SumOfWords:
    """A fixed random vector for a word, the same for words that begin alike; a text is the sum of its words."""

    name = "sum of words"

    def encode(self, texts: Sequence[str]) -> Vectors:
        rows = [sum((self._word(word) for word in text.split()), np.zeros(WIDTH)) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), WIDTH)

    def _word(self, word: str) -> Vectors:
        seed = zlib.crc32(word[:3].encode())  # like a real tokenizer it takes no half of a surrogate pair
        return np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)


class BreaksOff(SumOfWords):
    """Fails in its second batch."""

    calls = 0

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("out of memory")
        return super().encode(texts)


def said(number: int) -> str:
    rng = np.random.default_rng(number)
    return f"n{number} " + " ".join(rng.choice(WORDS, 6))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DocumentStore]:
    """600 chunks, so that they are encoded in several batches."""
    documents = [Document("", "\n\n\n".join(said(100 * part + n) for n in range(100))) for part in range(6)]
    with build_store(tmp_path / "d.sqlite", documents) as opened:
        assert opened.count == 600
        yield opened


@pytest.fixture
def path(store: DocumentStore, tmp_path: Path) -> Path:
    build_vectors(store, SumOfWords(), tmp_path / "v.safetensors")
    return tmp_path / "v.safetensors"


def cosines(query: str) -> Vectors:
    """(600,), computed from the texts themselves."""
    every, asked = SumOfWords().encode([said(n) for n in range(600)]), SumOfWords().encode([query])[0]
    return np.asarray(every @ asked / np.linalg.norm(every, axis=1) / np.linalg.norm(asked), dtype=np.float32)


def test_the_file_has_a_unit_vector_for_every_chunk_in_order(path: Path) -> None:
    vectors = load_file(path)["vectors"]
    assert vectors.dtype == np.float16 and vectors.shape == (600, WIDTH)
    assert np.linalg.norm(vectors.astype(np.float32), axis=1) == pytest.approx(np.ones(600), abs=2e-3)
    expected = SumOfWords().encode([said(n) for n in range(600)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(vectors - expected).max() < 1e-3


def test_a_build_that_fails_leaves_the_old_file_and_nothing_else(store: DocumentStore, path: Path) -> None:
    before, names = path.read_bytes(), sorted(path.parent.iterdir())
    with pytest.raises(RuntimeError, match="out of memory"):
        build_vectors(store, BreaksOff(), path)
    assert path.read_bytes() == before and sorted(path.parent.iterdir()) == names


def test_a_folder_is_made_and_a_file_in_its_place_is_one_line(store: DocumentStore, tmp_path: Path) -> None:
    build_vectors(store, SumOfWords(), tmp_path / "new" / "v")
    assert (tmp_path / "new" / "v").is_file()
    with pytest.raises(StorageError, match=r"^[^\n]+ is a file, not a folder: choose another --out$"):
        build_vectors(store, SumOfWords(), tmp_path / "new" / "v" / "w")


@pytest.mark.parametrize("query", ["heron sea", "tidal riverside", "n5 boat", "rope rope oar"])
def test_fusion_is_that_of_the_paper(store: DocumentStore, path: Path, query: str) -> None:
    """Cormack, Clarke & Büttcher 2009: the sum of 1 / (60 + rank) over both orders, with the vectors of the file."""
    vectors = load_file(path)["vectors"].astype(np.float32)
    asked = SumOfWords().encode([query])[0]
    by_meaning = np.argsort(-(vectors @ (asked / np.linalg.norm(asked))), kind="stable")[:DEPTH]
    by_words = [one.chunk for one in store.search(query, DEPTH)]
    expected: dict[int, float] = {}
    for order in (by_words, by_meaning.tolist()):
        for rank, chunk in enumerate(order, 1):
            expected[chunk] = expected.get(chunk, 0) + 1 / (60 + rank)
    found = FusedSearch(store, DenseIndex(store, SumOfWords(), path)).search(query, 30)
    assert {one.chunk: one.score for one in found} == pytest.approx({one.chunk: expected[one.chunk] for one in found})
    assert [one.score for one in found] == pytest.approx(sorted(expected.values(), reverse=True)[:30])


def test_float16_keeps_the_order_up_to_near_ties(store: DocumentStore, path: Path) -> None:
    found = DenseIndex(store, SumOfWords(), path).search("heron sea", 10)
    exact = cosines("heron sea")
    assert [one.score for one in found] == pytest.approx(np.sort(exact)[::-1][:10].tolist(), abs=2e-3)
    assert [exact[one.chunk] for one in found] == pytest.approx([one.score for one in found], abs=2e-3)


def test_a_smaller_limit_is_the_beginning_of_a_larger_one(store: DocumentStore, path: Path) -> None:
    fused = FusedSearch(store, DenseIndex(store, SumOfWords(), path))
    every = fused.search("heron sea", 40)
    assert len(every) == 40
    assert [fused.search("heron sea", limit) for limit in (0, 1, 7)] == [every[:limit] for limit in (0, 1, 7)]


@pytest.mark.parametrize(
    "query", ["", " ", '"', "NEAR(", "a\0b", "half \ud800", "😀", "heron " * 200_000], ids=range(8)
)
def test_any_text_may_be_asked_for(store: DocumentStore, path: Path, query: str) -> None:
    found = FusedSearch(store, DenseIndex(store, SumOfWords(), path)).search(query, 2)
    assert len(found) == (2 if query.strip() else 0)


def test_fused_search_is_an_engine(store: DocumentStore, path: Path) -> None:
    engine = LocalSearch(FusedSearch(store, DenseIndex(store, SumOfWords(), path)))
    (hit,) = engine.search("n205", 1)
    assert hit.url == "store:2#205" and hit.text == said(205)


def test_without_documents_nothing_is_found(tmp_path: Path) -> None:
    with build_store(tmp_path / "empty.sqlite", []) as empty:
        build_vectors(empty, SumOfWords(), tmp_path / "v")
        assert DenseIndex(empty, SumOfWords(), tmp_path / "v").search("sea") == []


def test_what_is_no_file_of_vectors_is_one_line(store: DocumentStore, path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no vectors at all " * 50)
    (tmp_path / "short").write_bytes(path.read_bytes()[:200])
    save_file({"weights": np.zeros((600, WIDTH), np.float16)}, tmp_path / "foreign")
    save_file({"vectors": np.zeros((600, WIDTH), np.float16)}, tmp_path / "unnamed")
    folder.mkdir()
    for name in ("empty", "text", "short", "foreign", "unnamed", "folder", "missing"):
        with pytest.raises(CheckpointError, match=r"^[^\n]+ anew[^\n]*$"):
            DenseIndex(store, SumOfWords(), tmp_path / name)
