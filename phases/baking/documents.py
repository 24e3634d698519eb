"""The agent's documents: the text that the data was made from, its training split only, as an index to look up.

The rows of the training stream are decoded and cut where documents' passages ended, so every data set will do, and no
held-out text can be looked up.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from phases.agent.documents import Document, build_store
from phases.dataset import Dataset


def training_passages(data: Dataset) -> Iterator[str]:
    """The training text, passage by passage."""
    rows_NT, tokenizer = data.blocks("train", "text"), data.tokenizer
    line = rows_NT[:, :-1].reshape(-1)  # a row's last token is the next one's first
    ends = np.flatnonzero(line == tokenizer.eos_token_id)
    for start, stop in zip([0, *(ends + 1)], [*ends, len(line)], strict=True):
        if stop > start:
            yield str(tokenizer.decode(line[start:stop].tolist(), skip_special_tokens=False))


def index_training_text(data: Dataset, path: Path) -> None:
    """Write the index; a document's title is the first of its lines that says anything."""
    build_store(path, (Document(title_of(text), text) for text in training_passages(data) if text.strip())).close()


def title_of(text: str, characters: int = 40) -> str:
    """The first line with a letter, cut at a word."""
    lines = (line.strip(" #\"'=-*:\t") for line in text.split("\n"))
    first = next((line for line in lines if any(c.isalpha() for c in line)), "untitled")
    return first if len(first) <= characters else first[:characters].rsplit(" ", 1)[0]
