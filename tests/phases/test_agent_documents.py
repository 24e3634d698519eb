"""Documents: chunks that lose nothing, a file with fixed bytes, a search that any text may enter, vectors beside it."""

import hashlib
import itertools
import random
import sqlite3
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phases.agent.chunks import chunks_of
from phases.agent.dense import (
    DenseIndex,
    FusedSearch,
    Vectors,
    build_vectors,
    fuse,
    open_embedder,
    vectors_path,
)
from phases.agent.documents import Document, DocumentStore, Passage, build_store
from phases.agent.snippets import snippet
from phases.agent.tool import ToolContext, ToolError, built_in
from phases.agent.wording import words
from phases.errors import CheckpointError, DataError, MissingDependency, StorageError

MATHS = (
    "math\n\nMathematical functions.\n\n\nmath.gcd\n\nGreatest common divisor of integers.\n\n\n"
    "math.gcd_all\n\nOf many.\n\n\nmath.lcm\n\nLeast common multiple; unlike math.gcd it grows. See math.gcd, math.gcd."
)
PLACES = "A Café stands on the corner.\n\n\nThe river runs to the sea.\n\n\nThe sea is salt, and the river is not."
TEXTS = [Document("maths", MATHS), Document("places of the town", PLACES)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DocumentStore]:
    with build_store(tmp_path / "documents.sqlite", TEXTS) as opened:
        yield opened


def texts(found: Sequence[Passage]) -> list[str]:
    return [one.text for one in found]


def sections(count: int, seed: int = 0) -> list[Document]:
    """Documents of random words, some of them rare."""
    rng = random.Random(seed)
    drawn = [[f"w{int(rng.paretovariate(0.6))}" for _ in range(rng.randint(3, 40))] for _ in range(count)]
    return [Document(f"title {number}", " ".join(said)) for number, said in enumerate(drawn)]


# Chunks


@given(st.text(alphabet="ab .\n\t\r:é", max_size=400), st.integers(8, 60))
def test_chunks_lose_nothing_and_keep_to_the_size(text: str, size: int) -> None:
    chunks = chunks_of(text, size)
    covered = {place for start, length in chunks for place in range(start, start + length)}
    assert all(text[place].isspace() for place in set(range(len(text))) - covered)
    assert all(0 < length <= size for _, length in chunks)
    assert all(a + length <= b for (a, length), (b, _) in itertools.pairwise(chunks))


def test_paragraphs_are_put_together_while_they_fit_and_sections_never() -> None:
    text = "One is here.\n\nTwo is here.\n\nThree is here.\n\n\nFour."
    assert [text[a : a + n].strip() for a, n in chunks_of(text, 30)] == [
        "One is here.\n\nTwo is here.",
        "Three is here.",
        "Four.",
    ]
    short_and_long = "A line.\n\nAnd one of more words."
    assert [a for a, _ in chunks_of(short_and_long, 25)] == [0, short_and_long.index("And")]


@pytest.mark.parametrize("heading", ["math.gcd", "Underlined\n=====", "# A title", "With spaces in it"])
def test_a_heading_stays_with_its_paragraph(heading: str) -> None:
    text = f"{'First words. ' * 4}\n\n{heading}\n\n{'Long words follow here ' * 8}"
    pieces = [text[a : a + n] for a, n in chunks_of(text, 60)]
    (with_heading,) = [piece for piece in pieces if heading in piece]
    assert with_heading.startswith(heading) and "Long words" in with_heading


def test_a_long_paragraph_is_cut_at_line_ends_then_between_words() -> None:
    lines = "alpha beta gamma delta\n" * 4
    assert {lines[a : a + n] for a, n in chunks_of(lines, 50)} == {"alpha beta gamma delta\n" * 2}
    line = "alpha beta gamma delta " * 4
    assert all(set(line[a : a + n].split()) <= {"alpha", "beta", "gamma", "delta"} for a, n in chunks_of(line, 50))


# The file


def test_the_same_texts_give_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a.sqlite", "b/c.sqlite"):
        build_store(tmp_path / name, sections(200)).close()
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    build_store(tmp_path / "a.sqlite", sections(200, seed=1)).close()
    assert len(digests) == 1
    assert hashlib.sha256((tmp_path / "a.sqlite").read_bytes()).hexdigest() not in digests


def test_a_build_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def broken() -> Iterator[Document]:
        yield TEXTS[0]
        raise RuntimeError("the source ended")

    path = tmp_path / "documents.sqlite"
    build_store(path, TEXTS).close()
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="the source ended"):
        build_store(path, broken())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "documents.sqlite"):
        with pytest.raises(StorageError, match=r"^[^\n]+; give|choose"):
            build_store(path, TEXTS)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_texts_take_less_than_they_are(tmp_path: Path) -> None:
    files = [Path(random.__file__).with_name(name) for name in ("_pydecimal.py", "argparse.py", "inspect.py", "ast.py")]
    build_store(tmp_path / "d.sqlite", [Document(path.name, path.read_text("utf-8")) for path in files]).close()
    assert (tmp_path / "d.sqlite").stat().st_size < 0.75 * sum(path.stat().st_size for path in files)


def test_every_chunk_can_be_read(store: DocumentStore) -> None:
    joined = "".join(store.chunk(number).text for number in range(store.count))
    assert "".join(joined.split()) == "".join((MATHS + PLACES).split())
    with pytest.raises(IndexError, match="there are 7"):
        store.chunk(7)


def test_what_no_file_can_hold_is_replaced(tmp_path: Path) -> None:
    with build_store(tmp_path / "d.sqlite", [Document("\ud800", "half \udfff and \0 nil"), Document("", "")]) as store:
        assert store.search("nil")[0].text == "half \ufffd and \ufffd nil"


def test_it_opens_where_nothing_may_be_written(tmp_path: Path) -> None:
    path = tmp_path / "odd %41?#name.sqlite"
    build_store(path, TEXTS).close()
    path.chmod(0o444)
    with DocumentStore(path) as store, pytest.raises(sqlite3.OperationalError, match="readonly"):
        store._db.execute("DELETE FROM chunks")
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_missing_foreign_or_truncated_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "documents.sqlite"
    build_store(path, sections(300)).close()
    whole = path.read_bytes()
    foreign = sqlite3.connect(tmp_path / "foreign")
    foreign.execute("CREATE TABLE chunks (id)")
    foreign.close()
    (tmp_path / "text").write_text("no database at all " * 500)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "short").write_bytes(whole[:5000])
    for name in ("missing", "foreign", "text", "empty", "short", "."):
        with pytest.raises(CheckpointError, match=r"^[^\n]*(restore|run the phase again)[^\n]*$"):
            DocumentStore(tmp_path / name)


def test_damage_anywhere_is_found_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "documents.sqlite"
    build_store(path, sections(300)).close()
    whole = path.read_bytes()
    refused = 0
    for page in range(len(whole) // 4096):
        path.write_bytes(whole[: 4096 * page] + b"\xa5" * 4096 + whole[4096 * page + 4096 :])
        try:
            with DocumentStore(path) as store:
                for query in ("w1", "w7 w9", "title 250"):
                    store.search(query, 30)
        except CheckpointError:
            refused += 1
    assert refused > len(whole) // 4096 // 2


def test_threads_may_share_a_store(store: DocumentStore) -> None:
    alone = {query: store.search(query) for query in ("math.gcd", "river sea", "corner")}
    wrong: list[str] = []

    def ask() -> None:
        for query, found in list(alone.items()) * 50:
            if store.search(query) != found:
                wrong.append(query)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# The search


@pytest.mark.parametrize("query", ["math.gcd", "MATH.GCD", " math.gcd ", "math.gcd Greatest"])
def test_a_name_finds_the_chunk_that_begins_with_it(store: DocumentStore, query: str) -> None:
    first = store.search(query)[0]
    assert first.text.startswith("math.gcd\n\nGreatest") and first.score == float("inf") and first.title == "maths"


def test_a_name_is_not_the_beginning_of_a_longer_one(tmp_path: Path) -> None:
    longer = [Document("", f"os.path{rest}\n\nAbout it.") for rest in (".join", "_like", "", "2", " is a module")]
    with build_store(tmp_path / "d.sqlite", longer) as store:
        begun = [one for one in store.search("os.path", 5) if one.score == float("inf")]
    assert [one.text.split("\n")[0] for one in begun] == ["os.path", "os.path is a module", "os.path.join"]


def test_a_heading_wins_against_a_line_of_code(tmp_path: Path) -> None:
    code = Document("", "    os.path.join(a, b)\n    return a")
    with build_store(tmp_path / "d.sqlite", [code, Document("", "os.path.join(a, *p)\n\nPut together.")]) as store:
        assert store.search("os.path.join")[0].text.endswith("Put together.")


def test_scores_are_bm25(tmp_path: Path) -> None:
    """One chunk a document, one word: the formula as the paper has it, k1 = 1.2 and b = 0.75."""
    said = ["w3 " * count + "other " * (3 * count + rest) for count, rest in [(0, 9), (1, 0), (2, 5), (3, 1), (0, 2)]]
    with build_store(tmp_path / "d.sqlite", [Document("", "so " + text) for text in said + ["else"] * 5]) as store:
        found = store.search("w3", 9)
    lengths = [len(text.split()) + 1 for text in said] + [2] * 5
    counts = [text.split().count("w3") for text in said]
    idf = np.log((10 - 3 + 0.5) / (3 + 0.5))
    mean = sum(lengths) / 10
    expected = {i: idf * c * 2.2 / (c + 1.2 * (0.25 + 0.75 * lengths[i] / mean)) for i, c in enumerate(counts) if c}
    assert {one.document: one.score for one in found} == pytest.approx(expected, rel=1e-6)
    assert [one.document for one in found] == sorted(expected, key=lambda number: -expected[number])


def test_a_rare_word_counts_more_than_a_common_one(tmp_path: Path) -> None:
    common = [Document("", f"talk of boats and more of it, number {n}") for n in range(10)]
    with build_store(tmp_path / "d.sqlite", [*common, Document("", "talk of a heron and more, a number")]) as store:
        assert "heron" in store.search("boats heron")[0].text


def test_all_words_in_one_chunk_win(tmp_path: Path) -> None:
    said = ["x y heron heron heron", "x y boats boats boats", "boats here and a heron there " + "x " * 9, "z", "z"]
    with build_store(tmp_path / "d.sqlite", [Document("", text) for text in said]) as store:
        assert store.search("heron boats")[0].document == 2
        assert store.search("heron missing boats")[0].document != 2  # not all of them are anywhere


def test_small_words_select_nothing_beside_others(tmp_path: Path) -> None:
    said = ["how do I do what I do, how", "Join the paths with a sign", *["filling"] * 30]
    with build_store(tmp_path / "d.sqlite", [Document("", text) for text in said]) as store:
        assert texts(store.search("how do I join paths", 1)) == [said[1]]
        assert texts(store.search("how do I", 1)) == [said[0]]


@pytest.mark.parametrize("query", ["cafe", "CAFÉ", "café", "standing", "places town"])
def test_case_accents_endings_and_titles(store: DocumentStore, query: str) -> None:
    assert store.search(query, 1)[0].text.startswith("A Café")


ODD = [
    *("", " ", '"', '""', "'", "*", "a*", "NEAR(a b)", "AND", "OR OR", "NOT", "text:", "^", "(", "{a}:b", "-", "--;"),
    *("\0", "a\0b", "\ud800", "😀", "😀 sea", "%s", "x" * 1_000_000, "sea " * 250_000, "\n" * 1_000_000, "é" * 5000),
]


@pytest.mark.parametrize("query", ODD, ids=range(len(ODD)))
def test_any_text_may_be_asked_for(store: DocumentStore, query: str) -> None:
    found = store.search(query, 2)
    assert len(found) <= 2
    assert all(set(words(query)) & set(words(one.text)) for one in found)
    assert bool(found) == ("sea" in query or query in ("AND", "a*", "a\0b", "NEAR(a b)", "{a}:b", "NOT"))


def test_no_more_than_asked_for_and_none_twice(tmp_path: Path) -> None:
    with build_store(tmp_path / "d.sqlite", sections(300)) as store:
        for limit in (0, 1, 7, 100):
            found = store.search("w1 w2 w3", limit)
            assert len({one.chunk for one in found}) == len(found) <= limit
        assert texts(store.search("w1 w2 w3", 7)) == texts(found[:7])
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


# Snippets


@given(st.lists(st.text("abcé", min_size=1, max_size=9), max_size=40), st.integers(14, 60), st.data())
def test_a_snippet_shows_a_word_of_the_query_in_whole_words(parts: list[str], size: int, data: st.DataObject) -> None:
    query = data.draw(st.sampled_from(parts)) if parts else "a"
    shown = snippet("  ".join(parts), query.upper(), size)
    assert len(shown) <= size
    assert set(shown.replace("…", "").split()) <= set(parts)
    assert query in shown.split() or not parts or words(query) == []


def test_a_snippet_is_where_the_most_words_are() -> None:
    text = "river " + "and so on " * 20 + "the river meets the sea here " + "and so on " * 20
    assert "river meets the sea" in snippet(text, "sea river", 40)
    assert snippet(text, "nothing", 20).startswith("river and")
    assert snippet("short\n text", "x", 20) == "short text"
    assert snippet("x" * 50, "y", 20) == "x" * 20


# Vectors


class Letters:
    """Counts of letters: nearness of spelling stands for that of meaning."""

    name = "letters"

    def encode(self, texts: Sequence[str]) -> Vectors:
        counts = [[text.lower().count(chr(97 + letter)) for letter in range(26)] for text in texts]
        return np.array(counts, dtype=np.float32).reshape(-1, 26)


@pytest.fixture
def dense(store: DocumentStore) -> DenseIndex:
    build_vectors(store, Letters(), vectors_path(store.path))
    return DenseIndex(store, Letters(), vectors_path(store.path))


def test_scores_of_vectors_are_cosines(store: DocumentStore, dense: DenseIndex) -> None:
    every = Letters().encode([store.chunk(number).text for number in range(store.count)])
    asked = Letters().encode(["salty rivers"])[0]
    cosines = every @ asked / np.linalg.norm(every, axis=1) / np.linalg.norm(asked)
    found = dense.search("salty rivers", 3)
    assert [one.chunk for one in found] == np.argsort(-cosines)[:3].tolist()
    assert [one.score for one in found] == pytest.approx(sorted(cosines, reverse=True)[:3], abs=2e-3)
    assert dense.search("123", 3) == []


def test_vectors_are_half_as_large_and_the_same_each_time(store: DocumentStore, dense: DenseIndex) -> None:
    path = vectors_path(store.path)
    before = path.read_bytes()
    build_vectors(store, Letters(), path)
    assert path.read_bytes() == before
    assert 2 * 26 * store.count < len(before) < 2 * 26 * store.count + 400


def test_fusion_is_by_reciprocal_ranks() -> None:
    a, b, c = (Passage("", name, 0.5, 0, number) for number, name in enumerate("abc"))
    fused = fuse([[a, b], [b, c]])
    assert texts(fused) == ["b", "a", "c"]
    assert [one.score for one in fused] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])


def test_fused_search_finds_what_words_alone_do_not(store: DocumentStore, dense: DenseIndex) -> None:
    fused = FusedSearch(store, dense)
    assert store.search("rivre saalt") == []
    assert "salt" in fused.search("rivre saalt", 1)[0].text
    assert fused.search("math.gcd", 1)[0].text.startswith("math.gcd\n")
    found = fused.search("river", store.count)
    assert len({one.chunk for one in found}) == len(found) == store.count


def test_vectors_of_others_are_refused(store: DocumentStore, dense: DenseIndex, tmp_path: Path) -> None:
    path = vectors_path(store.path)
    other = Letters()
    other.name = "another"
    with pytest.raises(CheckpointError, match="another model; make the vectors anew"):
        DenseIndex(store, other, path)
    with build_store(tmp_path / "other.sqlite", TEXTS[:1]) as less, pytest.raises(CheckpointError, match="anew"):
        DenseIndex(less, Letters(), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        DenseIndex(store, Letters(), path)
    with pytest.raises(CheckpointError, match="no such file"):
        DenseIndex(store, Letters(), tmp_path / "missing")


def test_an_embedder_that_gives_no_vectors_is_one_line(store: DocumentStore, tmp_path: Path) -> None:
    class Broken(Letters):
        def encode(self, texts: Sequence[str]) -> Vectors:
            return super().encode(texts)[:-1] if len(texts) > 1 else super().encode(texts) * np.float32("nan")

    with pytest.raises(DataError, match=r"letters: gave \(6, 26\) or NaN for 7 texts"):
        build_vectors(store, Broken(), tmp_path / "v")
    with build_store(tmp_path / "one.sqlite", [Document("", "one")]) as one, pytest.raises(DataError, match="NaN"):
        build_vectors(one, Broken(), tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_without_the_extra_it_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model2vec", None)
    with pytest.raises(MissingDependency, match=r"pip install 'agent-forge\[dense\]'"):
        open_embedder("minishlab/potion-base-8M")


# The tool


def test_retrieve_reads_a_passage_from_its_beginning(store: DocumentStore) -> None:
    run, context = built_in("retrieve").run, ToolContext(documents=store)
    assert run({"query": "math.gcd"}, context) == "math.gcd Greatest common divisor of integers."
    assert run({"query": "zebra"}, context) == "nothing found"
    with pytest.raises(ToolError, match=r"^retrieve: no documents here$"):
        run({"query": "x"}, ToolContext())


def test_retrieve_cuts_between_words(tmp_path: Path) -> None:
    long = [Document("", "a heron " + "and its river " * 40), Document("", "y" * 390)]
    with build_store(tmp_path / "d.sqlite", long, chunk_chars=600) as store:
        said = built_in("retrieve").run({"query": "heron"}, ToolContext(documents=store))
        assert 140 < len(said) <= 160 and long[0].text.startswith(said) and said.split()[-1] in ("and", "its", "river")
        assert built_in("retrieve").run({"query": "y" * 390}, ToolContext(documents=store)) == "y" * 160
