"""The documents' file on real text: the pages of Python's own manual, which come with the interpreter."""

import hashlib
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from phases.agent.chunks import chunks_of
from phases.agent.documents import Document, DocumentStore, build_store
from phases.errors import CheckpointError

BYTES = 300_000
BUILD = """
import sys
from pathlib import Path
from pydoc_data.topics import topics
from phases.agent.documents import Document, build_store
build_store(Path(sys.argv[1]), [Document(name, topics[name]) for name in sorted(topics)[:20]]).close()
"""


def manual() -> Iterator[Document]:
    """Pages of the manual, `BYTES` of them or a little more."""
    taken = 0
    for name in sorted(topics):
        if taken < BYTES:
            taken += len(topics[name].encode())
            yield Document(name, topics[name])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("manual") / "documents.sqlite"
    build_store(path, manual()).close()
    return path


def test_the_file_is_smaller_than_its_text(path: Path) -> None:
    text = sum(len(one.text.encode()) for one in manual())
    assert BYTES <= text < 1.5 * BYTES
    assert path.stat().st_size < text


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for seed in ("1", "2"):  # sets and the like come in another order
        out = tmp_path / seed
        done = [sys.executable, "-c", BUILD, str(out)]
        subprocess.run(done, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, cwd=Path(__file__).parents[2])
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_every_page_can_be_put_together_from_its_chunks(path: Path) -> None:
    read: dict[int, str] = {}
    with DocumentStore(path) as store:
        for number in range(store.count):
            one = store.chunk(number)
            read[one.document] = read.get(one.document, "") + one.text
    assert [squeezed(text) for text in read.values()] == [squeezed(one.text) for one in manual()]


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_the_beginning_of_a_chunk_finds_it(path: Path) -> None:
    with DocumentStore(path) as store:
        for one in (store.chunk(number) for number in range(0, store.count, 23)):
            begins = " ".join(one.text.split()[:8])
            assert " ".join(store.search(begins, 1)[0].text.split()).startswith(begins)


def test_a_flipped_byte_in_a_body_is_found_when_it_is_read(path: Path, tmp_path: Path) -> None:
    db = sqlite3.connect(path)
    bodies = [body for (body,) in db.execute("SELECT body FROM documents WHERE length(body) BETWEEN 500 AND 1000")]
    db.close()
    whole, rng = path.read_bytes(), random.Random(0)
    assert len(bodies) >= 3
    for body in bodies:
        at = whole.index(body[:40]) + rng.randrange(40)  # what follows may lie in another page
        copy = tmp_path / "copy.sqlite"
        copy.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        with (
            DocumentStore(copy) as store,
            pytest.raises(CheckpointError, match=r"^[^\n]+damaged \(document \d+\)[^\n]+$"),
        ):
            for number in range(store.count):
                store.chunk(number)


@pytest.mark.parametrize("size", [40, 400, 4000])
def test_chunks_of_real_text_lose_nothing(size: int) -> None:
    for one in manual():
        chunks = chunks_of(one.text, size)
        assert squeezed("".join(one.text[a : a + n] for a, n in chunks)) == squeezed(one.text)
        assert all(n <= size for _, n in chunks)
