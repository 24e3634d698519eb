"""Where text comes from: the interpreter's own library, the user's files, or a hub data set.

The embedded default is real English and Python that every machine already has: the reference topics of `pydoc_data`,
the docstrings of the built-in modules and the sources of the standard library (PSF-2.0). The user's `.txt`, `.jsonl`,
`.csv` and `.parquet` files are read row by row; hub data sets go through `datasets`.
"""

import glob
import hashlib
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from phases.data.rows import read_rows, read_text
from phases.errors import DataError
from phases.strict import StrictModel

_SKIP = {"test", "tests", "idlelib", "lib2to3", "site-packages", "_bundled", "turtledemo", "encodings", "pydoc_data"}


@dataclass(frozen=True)
class Document:
    """One text and where it came from."""

    text: str
    source: str
    licence: str


class Embedded(StrictModel):
    """The interpreter's own library: topics, docstrings, sources."""

    kind: Literal["embedded"] = "embedded"
    """Text of the interpreter's own standard library."""
    max_bytes: int = Field(9_000_000, ge=10_000)
    """Take at most this much: all topics and docstrings, then source files in the order of their hash."""


class Files(StrictModel):
    """The user's own files."""

    kind: Literal["files"]
    """Your own files."""
    paths: tuple[str, ...] = Field(min_length=1)
    """Paths or patterns (`notes/*.txt`) of .txt, .jsonl, .csv or .parquet files."""
    text_column: str = "text"
    """The column that holds the text; plain .txt files have none."""
    licence: str = "not stated"
    """Goes into the data card."""


class Hub(StrictModel):
    """A data set of the Hugging Face hub; needs network once."""

    kind: Literal["hub"]
    """A data set of the Hugging Face hub."""
    name: str
    """The data set's id, such as `roneneldan/TinyStories`."""
    configuration: str | None = None
    """The data set's configuration, when it has several."""
    split: str = "train"
    """Which of the data set's splits, slices allowed: `train[:10000]`."""
    text_column: str = "text"
    """The column that holds the text."""
    licence: str = "not stated"
    """Goes into the data card."""


Source = Annotated[Embedded | Files | Hub, Field(discriminator="kind")]


def read_source(source: Embedded | Files | Hub) -> list[Document]:
    """All documents of a source, in a fixed order. Raises `DataError` that names the file and the fix."""
    if isinstance(source, Embedded):
        return _embedded(source.max_bytes)
    if isinstance(source, Hub):
        return _hub(source)
    documents = []
    for path in resolve(source.paths):
        texts = [read_text(path)] if path.suffix == ".txt" else read_column(path, source.text_column)
        found = [Document(text, path.name, source.licence) for text in texts if text.strip()]
        documents += found
        if not found:
            raise DataError(f"{path}: empty; give a file with text")
    return documents


def resolve(patterns: tuple[str, ...]) -> list[Path]:
    """Files that the patterns name, sorted. Raises `DataError` for a pattern that names none."""
    found: list[Path] = []
    for pattern in patterns:
        paths = [Path(p) for p in sorted(glob.glob(pattern, recursive=True)) if Path(p).is_file()]
        if not paths:
            raise DataError(f"{pattern}: no such file; give an existing path or pattern")
        found += paths
    return found


def read_column(path: Path, column: str) -> list[str]:
    """One column of a table as strings, less empty cells. Raises `DataError` that lists the columns there are."""
    texts = []
    for where, row in read_rows(path):
        if column not in row:
            raise DataError(f"{path}: {where} has no column '{column}'; it has: {', '.join(map(str, row))}")
        if row[column] is not None:
            texts.append(str(row[column]))
    return texts


def column_of(rows: Any, column: str, where: str) -> list[str]:
    """One column of a `datasets.Dataset` as strings; empty cells are left out."""
    if column not in rows.column_names:
        raise DataError(f"{where}: no column '{column}'; it has: {', '.join(rows.column_names)}")
    return [str(value) for value in rows[column] if value is not None]


def _hub(source: Hub) -> list[Document]:
    import datasets

    try:
        rows = datasets.load_dataset(source.name, source.configuration, split=source.split)
    except Exception as error:  # connection, name, configuration, split: datasets has a class for each
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"hub data set {source.name}: {reason}; check name and network, or use kind: files") from error
    texts = column_of(rows, source.text_column, f"hub data set {source.name}")
    return [Document(text, source.name, source.licence) for text in texts if text.strip()]


def _embedded(max_bytes: int) -> list[Document]:
    licence = "PSF-2.0"
    documents = [Document(text, "python-topics", licence) for _, text in sorted(_topics().items())]
    documents += [Document(text, "python-docstrings", licence) for text in _docstrings()]
    used = sum(len(d.text.encode()) for d in documents)
    files = sorted(_library_files(), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    for path in files:
        content = path.read_bytes()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            continue  # a handful of old modules declare another encoding
        if text.strip() and used + len(content) <= max_bytes:
            used += len(content)
            documents.append(Document(text, "python-library", licence))
    return documents


def _topics() -> dict[str, str]:
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    return topics


def _docstrings() -> Iterator[str]:
    """One document a built-in module: what `help()` knows of its functions and classes."""
    for name in sorted(sys.builtin_module_names):
        module = importlib.import_module(name)
        parts = [f"{name}\n\n{inspect.getdoc(module) or ''}"]
        for member, value in sorted(vars(module).items()):
            doc = inspect.getdoc(value) if callable(value) and not member.startswith("_") else None
            if doc:
                parts.append(f"{name}.{member}\n\n{doc}")
        if len(parts) > 1:
            yield "\n\n\n".join(parts)


def _library_files() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    return [p for p in root.rglob("*.py") if not _SKIP & set(p.relative_to(root).parts[:-1])]
