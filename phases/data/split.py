"""Documents to passages, passages to splits: by the hash of their content, so that adding text moves nothing.

A passage is a piece of a document cut at blank lines. Equal passages (after folding white space) are kept once, which
is also what keeps one text from standing in two splits.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from phases.data.sources import Document
from phases.dataset import SPLITS, Split


@dataclass(frozen=True)
class Passage:
    """A piece of a document, of about `passage_chars` characters."""

    text: str
    source: str
    licence: str


def content_hash(text: str) -> bytes:
    """SHA-256 of the text with white space folded and case ignored."""
    return hashlib.sha256(" ".join(text.split()).casefold().encode()).digest()


def split_of(digest: bytes, validation: float, test: float) -> Split:
    """The split that a content hash falls into, given the held-out shares."""
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"


def cut(text: str, size: int) -> list[str]:
    """Pieces of about `size` characters, at blank lines where possible, at line ends else; nothing is lost."""
    pieces: list[str] = []
    current = ""
    for paragraph in _paragraphs(text, size):
        if current and len(current) + len(paragraph) > size:
            pieces.append(current)
            current = ""
        current += paragraph
    return [*pieces, current] if current else pieces


def _paragraphs(text: str, size: int) -> Iterable[str]:
    """Paragraphs with their blank lines; one longer than `size` comes in lines, a line longer in slices."""
    for paragraph in _keep_ends(text, "\n\n"):
        if len(paragraph) <= size:
            yield paragraph
            continue
        for line in paragraph.splitlines(keepends=True):
            yield from (line[i : i + size] for i in range(0, len(line), size))


def _keep_ends(text: str, mark: str) -> Iterable[str]:
    parts = text.split(mark)
    yield from (part + mark for part in parts[:-1])
    if parts[-1]:
        yield parts[-1]


def passages_of(documents: Sequence[Document], size: int) -> tuple[list[Passage], int]:
    """Distinct passages in the documents' order, and how many repeated ones were left out."""
    seen: set[bytes] = set()
    kept: list[Passage] = []
    repeated = 0
    for document in documents:
        for piece in cut(document.text, size):
            digest = content_hash(piece)
            if not piece.strip():
                continue
            if digest in seen:
                repeated += 1
                continue
            seen.add(digest)
            kept.append(Passage(piece, document.source, document.licence))
    return kept, repeated


def split_by_hash(passages: Sequence[Passage], validation: float, test: float) -> dict[Split, list[Passage]]:
    """Each passage in the split that its content decides."""
    result: dict[Split, list[Passage]] = {split: [] for split in SPLITS}
    for passage in passages:
        result[split_of(content_hash(passage.text), validation, test)].append(passage)
    return result
