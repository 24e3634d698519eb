"""The agent's documents: texts in chunks, found by their words, in one file that any SQLite can open.

    build_store(Path("documents.sqlite"), [Document("colours", "Red is warm.\\n\\n\\nBlue is cold.")]).close()
    with DocumentStore(Path("documents.sqlite")) as store:
        store.search("blue")[0].text                 # "Blue is cold."

Two rules order what is found. A chunk that begins with what was asked for comes first, so `math.gcd` gives the text
under that heading and no caller's. The others go by BM25 (Robertson & Zaragoza 2009, by SQLite's FTS5): a chunk scores
for each word of the query, more for a rare one, and half as much again when it has them all.

Texts are compressed, and the index keeps no second copy of them (9.0 MB make 6.4). The same texts give the same bytes.
"""

import os
import re
import sqlite3
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from phases.agent.chunks import CHUNK_CHARS, chunks_of
from phases.agent.wording import STOP_WORDS, all_of, any_of, clean, words
from phases.errors import CheckpointError, StorageError
from phases.storage import explain_os_errors, fsync_path

_VERSION, _APPLICATION_ID = 2, 0x46444F43
"""`FDOC`: tells documents from any other database."""
_READ_CHARS, _WORDS, _PHRASE, _HEADINGS, _CANDIDATES = 2000, 24, 8, 32, 50
"""Bounds of a search: characters and words that are read, words to begin with, chunks looked at for each rule."""
_COMMON, _COMMON_WORDS = 0.05, 3
"""Share of chunks beyond which a word selects nothing, if the query has a rarer one; else so many are looked for."""
_ALL_WORDS, _TITLE = 1.5, 2.0
"""Factor for a chunk that has every word, and for words of a title."""
# Contentless: without `detail=full` FTS5 cannot count words there, and every score of BM25 would be 0. The text comes
# first: naming a later column costs two bytes for every word of every chunk.
_SCHEMA = """
CREATE TABLE documents (id INTEGER PRIMARY KEY, title TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE chunks (id INTEGER PRIMARY KEY, document INTEGER, start INTEGER, length INTEGER);
CREATE VIRTUAL TABLE words USING fts5 (text, title, content='', tokenize='porter unicode61 remove_diacritics 2');
"""


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
    """Higher is better; infinite for a chunk that begins with the query."""
    document: int
    chunk: int
    whole: bool = True
    """Whether it starts at the beginning of a line, without indentation."""


def build_store(path: Path, texts: Iterable[Document], chunk_chars: int = CHUNK_CHARS) -> "DocumentStore":
    """Write the store to `path`, atomically, and open it. Raises `StorageError` when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if path.is_dir():
        raise StorageError(f"{path}: this is a folder; give the name of a file")
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            _write(temporary, texts, chunk_chars)
            fsync_path(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_path(path.parent)
    return DocumentStore(path)


def _write(path: Path, texts: Iterable[Document], chunk_chars: int) -> None:
    try:
        db = sqlite3.connect(path, isolation_level=None)
        try:
            _fill(db, texts, chunk_chars)
        finally:
            db.close()
    except sqlite3.OperationalError as error:
        raise StorageError(f"{path.parent}: cannot be written to ({error}); free some space or give another") from error


def _fill(db: sqlite3.Connection, texts: Iterable[Document], chunk_chars: int) -> None:
    settings = ("page_size = 1024", "journal_mode = OFF", f"user_version = {_VERSION}")
    for pragma in (*settings, f"application_id = {_APPLICATION_ID}"):
        db.execute(f"PRAGMA {pragma}")
    db.executescript(_SCHEMA)
    db.execute("BEGIN")
    number = 0
    for index, document in enumerate(texts):
        title, text = clean(document.title), clean(document.text)
        db.execute("INSERT INTO documents VALUES (?, ?, ?)", (index, title, zlib.compress(text.encode(), 9)))
        for place, (start, length) in enumerate(chunks_of(text, chunk_chars)):
            db.execute("INSERT INTO chunks VALUES (?, ?, ?, ?)", (number, index, start, length))
            # A title is indexed once, with the first chunk: it says least of the last.
            row = (number, text[start : start + length], "" if place else title)
            db.execute("INSERT INTO words (rowid, text, title) VALUES (?, ?, ?)", row)
            number += 1
    db.execute("INSERT INTO words (words) VALUES ('optimize')")
    db.execute("COMMIT")
    db.execute("VACUUM")


class DocumentStore:
    """An open store, which is only read; threads may share it."""

    def __init__(self, path: Path) -> None:
        """Raises `CheckpointError` for a file that is missing, damaged, or no store."""
        self.path = path
        self._lock = threading.Lock()
        if not path.is_file():
            raise CheckpointError(f"{path}: no documents here; restore the file from a copy or run the phase again")
        # Immutable: no lock, no journal, and it may lie where nothing can be written.
        address = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
        self._db = sqlite3.connect(address, uri=True, check_same_thread=False)
        try:
            self.count = self._check()
        except BaseException:
            self._db.close()
            raise
        self._body = lru_cache(maxsize=64)(self._read_body)

    def _check(self) -> int:
        """How many chunks there are."""
        application, version = (self._rows(f"PRAGMA {name}")[0][0] for name in ("application_id", "user_version"))
        if (application, version) != (_APPLICATION_ID, _VERSION):
            what = (
                f"documents of version {version}" if application == _APPLICATION_ID else "a database of something else"
            )
            raise CheckpointError(f"{self.path}: {what}, not documents of version {_VERSION}; run the phase again")
        return int(self._rows("SELECT count(*) FROM chunks")[0][0])

    def chunk(self, number: int) -> Passage:
        """The chunk of a number, 0 to `count` − 1."""
        return self._passage(number, 0.0)

    def search(self, query: str, limit: int = 3) -> list[Passage]:
        """The best chunks for a query, which may be any text; chunks that score the same are in their own order."""
        query = clean(query.strip()[:_READ_CHARS])
        found = self._beginning(query)[:limit]
        if len(found) < limit:
            known = {one.chunk for one in found}
            ranked = ((number, score) for number, score in self._by_words(query, limit) if number not in known)
            found += [self._passage(number, score) for number, score in ranked]
        return found[:limit]

    def _beginning(self, query: str) -> list[Passage]:
        """Chunks that begin with the query as whole words, the likeliest headings first."""
        asked = " ".join(query.split()).casefold()
        phrase = " ".join(words(asked)[:_PHRASE])
        if len(asked) < 3 or not phrase:
            return []
        begun = []
        for number, _ in self._matches(f'text : ^ "{phrase}"', _HEADINGS):
            one = self._passage(number, float("inf"))
            if (order := self._standing(one, asked)) is not None:
                begun.append((order, number, one))
        return [one for _, _, one in sorted(begun, key=lambda each: each[:2])]

    def _standing(self, one: Passage, asked: str) -> tuple[bool, ...] | None:
        """How a chunk begins with what was asked for, the best first in order; None when it does not.

        `os.path` as a heading comes before `os.path is`, that before `os.path.join`, and that before a line of code.
        """
        begun = " ".join(one.text[: 4 * len(asked) + 80].split()).casefold()
        rest = begun[len(asked) :]
        if not begun.startswith(asked) or re.match(r"\w", rest):
            return None
        alone = " ".join(one.text.split("\n", 1)[0].split()).casefold() == asked
        return not one.whole, bool(re.match(r"[.-]\w", rest)), not alone

    def _by_words(self, query: str, limit: int) -> list[tuple[int, float]]:
        """(chunk, score), best first."""
        asked = list(dict.fromkeys(words(query)))[:_WORDS]
        most = max(20, int(_COMMON * self.count))
        counted = {word: self._frequency(word, most) for word in asked}
        known = [word for word in asked if counted[word]]
        rare = [word for word in known if counted[word] <= most]
        telling = [word for word in rare if word not in STOP_WORDS] or rare or known[:_COMMON_WORDS]
        wanted = max(limit, _CANDIDATES)
        scores = dict(self._matches(any_of(telling), wanted)) if known else {}
        if len(asked) > 1 and len(known) == len(asked):
            for number, score in self._matches(all_of(known), wanted):
                scores[number] = max(score, scores.get(number, 0.0)) * _ALL_WORDS
        return sorted(scores.items(), key=lambda one: (-one[1], one[0]))[:limit]

    def _frequency(self, word: str, most: int) -> int:
        """Chunks that have the word, counted up to one more than `most`."""
        ask = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
        return int(self._rows(ask, any_of([word]), most + 1)[0][0])

    def _matches(self, match: str, limit: int) -> list[tuple[int, float]]:
        """(chunk, BM25) of those that FTS5's query matches, best first."""
        # Negative as FTS5 has it.
        ask = "SELECT rowid, bm25(words, 1, ?) AS score FROM words WHERE words MATCH ? ORDER BY score, rowid LIMIT ?"
        return [(int(number), -float(score)) for number, score in self._rows(ask, _TITLE, match, limit)]

    def _passage(self, number: int, score: float) -> Passage:
        rows = self._rows("SELECT document, start, length FROM chunks WHERE id = ?", number)
        if not rows:
            raise IndexError(f"chunk {number}: there are {self.count}")
        document, start, length = rows[0]
        title, text = self._body(document)
        piece = text[start : start + length]
        whole = (start == 0 or text[start - 1] == "\n") and bool(re.match(r"\n*\S", piece))
        return Passage(title, piece.strip(), score, document, number, whole)

    def _read_body(self, document: int) -> tuple[str, str]:
        rows = self._rows("SELECT title, body FROM documents WHERE id = ?", document)
        try:
            title, body = rows[0]
            return str(title), zlib.decompress(body).decode()
        except (IndexError, TypeError, zlib.error, UnicodeDecodeError):
            raise CheckpointError(f"{self.path}: damaged (document {document}); restore it from a copy") from None

    def _rows(self, ask: str, *values: str | int | float) -> list[Any]:
        try:
            with self._lock:
                return self._db.execute(ask, values).fetchall()
        except sqlite3.ProgrammingError:
            raise  # closed, or wrong here: not the file's fault
        except sqlite3.Error as error:
            raise CheckpointError(f"{self.path}: damaged ({error}); restore it from a copy") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
