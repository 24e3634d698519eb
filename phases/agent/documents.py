"""The agent's documents: texts in chunks, found by their words, in one file that any SQLite can open.

    build_store(Path("documents.sqlite"), [Document("colours", "Red is warm.\\n\\n\\nBlue is cold.")])
    with DocumentStore(Path("documents.sqlite")) as store:
        store.search("blue")[0].text                 # "Blue is cold."

A chunk that begins with what was asked for comes first (`math.gcd` stands above its own description); then BM25 over
the question's words (Robertson & Zaragoza 2009, by SQLite's FTS5), words that stand nearly everywhere left out. Texts
are compressed, and the index holds no second copy of them. The same texts give the same bytes.
"""

import os
import re
import sqlite3
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from phases.data.split import cut
from phases.errors import CheckpointError
from phases.storage import explain_os_errors, fsync_path

CHUNK_CHARS = 400
_HEAD, _WORDS, _COMMON = 48, 24, 0.05
"""Characters by which chunks are found that begin with a query; words of a query that are looked for; the share of
chunks beyond which a word is too common to be."""
_SCHEMA = """
CREATE TABLE documents (id INTEGER PRIMARY KEY, title TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE chunks (id INTEGER PRIMARY KEY, document INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
                     head TEXT NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (title, text, content='', detail='column', tokenize='unicode61');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab (words, row);
"""
_VERSION = 1


@dataclass(frozen=True)
class Document:
    """A text to be looked up."""

    title: str
    text: str


@dataclass(frozen=True)
class Passage:
    """A chunk that was found."""

    title: str
    """Of its document."""
    text: str
    score: float
    """BM25, higher is better; infinite for a chunk that begins with the query."""
    document: int
    chunk: int


def chunks_of(text: str, size: int = CHUNK_CHARS) -> list[tuple[int, int]]:
    """(start, length) of the chunks of a text: its sections (two blank lines apart), cut where they are too long."""
    found, at = [], 0
    for section in re.split(r"(?<=\n\n\n)", text):
        for piece in cut(section, size):
            if piece.strip():
                found.append((at, len(piece)))
            at += len(piece)
    return found


def build_store(path: Path, documents: Iterable[Document], chunk_chars: int = CHUNK_CHARS) -> "DocumentStore":
    """Write the store to `path`, atomically, and open it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            db = sqlite3.connect(temporary, isolation_level=None)
            try:
                _fill(db, documents, chunk_chars)
            finally:
                db.close()
            fsync_path(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_path(path.parent)
    return DocumentStore(path)


def _fill(db: sqlite3.Connection, documents: Iterable[Document], chunk_chars: int) -> None:
    for pragma in ("page_size = 4096", "journal_mode = OFF", f"user_version = {_VERSION}"):
        db.execute(f"PRAGMA {pragma}")
    db.executescript(_SCHEMA)
    db.execute("BEGIN")
    number = 0
    for index, document in enumerate(documents):
        text = document.text.encode("utf-8", "replace").decode()
        db.execute("INSERT INTO documents VALUES (?, ?, ?)", (index, document.title, zlib.compress(text.encode(), 9)))
        for start, length in chunks_of(text, chunk_chars):
            chunk = text[start : start + length]
            db.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", (number, index, start, length, _head(chunk)))
            db.execute("INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", (number, document.title, chunk))
            number += 1
    db.execute("CREATE INDEX heads ON chunks (head)")
    db.execute("INSERT INTO words (words) VALUES ('optimize')")
    db.execute("COMMIT")
    db.execute("VACUUM")


def _head(text: str) -> str:
    return " ".join(text[: 4 * _HEAD].split()).casefold()[:_HEAD]


class DocumentStore:
    """An open store; it is only read, by any number of threads and processes."""

    def __init__(self, path: Path) -> None:
        """Raises `CheckpointError` for a file that is missing, damaged, or no store."""
        self.path = path
        try:
            if not path.is_file():
                raise sqlite3.OperationalError("no such file")
            # Immutable: no lock, no journal, and it may lie where nothing can be written.
            address = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
            self._db = sqlite3.connect(address, uri=True, check_same_thread=False)
            try:
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
                self.count = int(self._db.execute("SELECT count(*) FROM chunks").fetchone()[0])
            except sqlite3.Error:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise CheckpointError(
                f"{path}: no documents ({error}); restore it from a copy or run the phase again"
            ) from None
        if version != _VERSION:
            self._db.close()
            raise CheckpointError(f"{path}: documents of another version ({version}); run the phase again")
        self._body = lru_cache(maxsize=64)(self._read_body)

    def chunk(self, number: int) -> Passage:
        """The chunk of a number, 0 to `count` − 1."""
        return self._passage(number, 0.0)

    def search(self, query: str, limit: int = 3) -> list[Passage]:
        """The best chunks for a query, which may be any text."""
        try:
            first = self._beginning(query, limit)
            found = [self._passage(number, float("inf")) for number in first]
            for number, score in self._by_words(query, limit + len(first)) if len(found) < limit else ():
                if number not in first and len(found) < limit:
                    found.append(self._passage(number, score))
            return found
        except sqlite3.Error as error:
            raise CheckpointError(f"{self.path}: damaged ({error}); restore it from a copy") from None

    def _beginning(self, query: str, limit: int) -> list[int]:
        """Chunks that begin with the query as a whole word; the shortest such heading first."""
        head = _head(query)
        if len(head) < 3:
            return []
        ask = "SELECT id, head FROM chunks WHERE head >= ? AND head < ? ORDER BY head, id LIMIT ?"
        rows = self._db.execute(ask, (head, head + "\U0010ffff", 8 * limit)).fetchall()
        return [number for number, text in rows if not text[len(head) : len(head) + 1].isalnum()][:limit]

    def _by_words(self, query: str, limit: int) -> list[tuple[int, float]]:
        words = list(dict.fromkeys(word.casefold() for word in re.findall(r"[^\W_]+", query[:4000])))
        known = {word: self._frequency(word) for word in words[:_WORDS]}
        rare = [word for word, count in known.items() if 0 < count <= max(20, _COMMON * self.count)]
        chosen = rare or sorted((word for word, count in known.items() if count), key=lambda word: known[word])[:1]
        if not chosen:
            return []
        match = " OR ".join(f'"{word}"' for word in chosen)
        # Negative as FTS5 has it; a word of the text counts more than one of the title.
        ask = (
            "SELECT rowid, bm25(words, 0.5, 1.0) AS score FROM words WHERE words MATCH ? ORDER BY score, rowid LIMIT ?"
        )
        return [(int(number), -float(score)) for number, score in self._db.execute(ask, (match, limit))]

    def _frequency(self, word: str) -> int:
        found = self._db.execute("SELECT doc FROM vocabulary WHERE term = ?", (word,)).fetchone()
        return int(found[0]) if found else 0

    def _passage(self, number: int, score: float) -> Passage:
        row = self._db.execute("SELECT document, start, length FROM chunks WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise IndexError(f"chunk {number}: there are {self.count}")
        document, start, length = row
        title, text = self._body(document)
        return Passage(title, text[start : start + length].strip(), score, document, number)

    def _read_body(self, document: int) -> tuple[str, str]:
        title, body = self._db.execute("SELECT title, body FROM documents WHERE id = ?", (document,)).fetchone()
        try:
            return str(title), zlib.decompress(body).decode()
        except (zlib.error, UnicodeDecodeError) as error:
            raise sqlite3.DatabaseError(str(error)) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> "DocumentStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
