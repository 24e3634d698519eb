"""Documents found by meaning: a vector for every chunk beside the store, fused with the search by words. Optional.

    embedder = open_embedder("minishlab/potion-base-8M")     # or a folder; needs: pip install 'agent-forge[dense]'
    build_vectors(store, embedder, vectors_path(store.path)) # documents.vectors.safetensors
    found = FusedSearch(store, DenseIndex(store, embedder, vectors_path(store.path)))
    found.search("the largest number that divides both")     # passages, as from the store itself

The extra is Model2Vec (package `model2vec`): static vectors of words, computed without torch. Any other `Embedder`
will do. Vectors have length 1 and are kept as float16; 32,000 chunks of 256 dimensions take 17 MB, and a query is
compared with each. The two orders are joined by reciprocal rank fusion (Cormack, Clarke & Büttcher 2009).
"""

import importlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from phases.agent.documents import DocumentStore, Passage
from phases.agent.wording import clean
from phases.errors import CheckpointError, DataError, MissingDependency
from phases.storage import explain_os_errors, fsync_path, sha256_file

Vectors = npt.NDArray[np.float32]
DEPTH = 50
"""Passages of each order that are fused."""
_RANK = 60
"""The constant of the paper: how little the first few ranks differ."""
_BATCH, _READ_CHARS = 256, 2000
"""Chunks that are encoded at once; characters of a query that are read, as many as the store reads."""


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def name(self) -> str:
        """Which model it is; vectors of another one are refused."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(N, D), a row for each text."""
        ...


class StaticEmbedder:
    """A Model2Vec model."""

    def __init__(self, name: str, model: Any) -> None:
        self.name, self._model = name, model

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(N, D), a row for each text."""
        return np.asarray(self._model.encode(list(texts)), dtype=np.float32)


def open_embedder(name: str) -> StaticEmbedder:
    """A Model2Vec model from a folder or the hub, which needs the network once.

    Raises `MissingDependency` without the package, `DataError` when there is no such model.
    """
    try:
        model2vec: Any = importlib.import_module("model2vec")
    except ImportError:
        raise MissingDependency("search by meaning needs model2vec: pip install 'agent-forge[dense]'") from None
    try:
        return StaticEmbedder(name, model2vec.StaticModel.from_pretrained(name))
    except Exception as error:  # files, names, network: the hub has a class for each
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise DataError(f"embedding model {name}: {reason}; check name and network, or give a folder") from error


def vectors_path(store: Path) -> Path:
    """Where a store's vectors lie: beside it."""
    return store.with_suffix(".vectors.safetensors")


def build_vectors(store: DocumentStore, embedder: Embedder, path: Path) -> None:
    """Write the vectors of all chunks, atomically. Raises `DataError` when the embedder gives something else."""
    parts = [np.zeros((0, 1), np.float16)] if store.count == 0 else []
    for start in range(0, store.count, _BATCH):
        texts = [store.chunk(number).text for number in range(start, min(start + _BATCH, store.count))]
        parts.append(_unit(embedder, texts).astype(np.float16))
    body = save({"vectors": np.concatenate(parts)}, {"made": _made(store, embedder)})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(body)
            fsync_path(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_path(path.parent)


def _made(store: DocumentStore, embedder: Embedder) -> str:
    """What vectors belong to. One text, as the order of several is not fixed in the file."""
    return json.dumps({"embedder": embedder.name, "store": sha256_file(store.path)}, sort_keys=True)


def _unit(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """Vectors of length 1, or 0 for a text without any word that the model knows."""
    vectors_ND = np.asarray(embedder.encode(texts), dtype=np.float32)
    if vectors_ND.ndim != 2 or len(vectors_ND) != len(texts) or not np.isfinite(vectors_ND).all():
        raise DataError(f"embedding model {embedder.name}: gave {vectors_ND.shape} or NaN for {len(texts)} texts")
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return np.asarray(vectors_ND / np.where(lengths_N1 > 0, lengths_N1, 1), dtype=np.float32)


class DenseIndex:
    """The vectors of a store, ready to be searched."""

    def __init__(self, store: DocumentStore, embedder: Embedder, path: Path) -> None:
        """Raises `CheckpointError` for a file that is missing, damaged, or of other documents or another model."""
        self.store, self.embedder = store, embedder
        try:
            with safe_open(path, framework="numpy") as file:
                made = (file.metadata() or {}).get("made")
                vectors = file.get_tensor("vectors")
        except (OSError, SafetensorError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else "damaged"
            raise CheckpointError(f"{path}: no vectors ({reason}); make them anew from the documents") from None
        if made != _made(store, embedder) or len(vectors) != store.count:
            raise CheckpointError(f"{path}: of other documents or of another model; make the vectors anew")
        self._vectors_ND: Vectors = np.asarray(vectors, dtype=np.float32)

    def search(self, query: str, limit: int = 3) -> list[Passage]:
        """The chunks with the largest cosines, which are their scores; a query without known words finds nothing."""
        # Tokenizers refuse half of a surrogate pair, and would read a pasted book to its end.
        vector_D = _unit(self.embedder, [clean(query.strip()[:_READ_CHARS])])[0]
        if not vector_D.any() or not len(self._vectors_ND):
            return []
        scores_N = self._vectors_ND @ vector_D
        best = np.argsort(-scores_N, kind="stable")[:limit]
        return [replace(self.store.chunk(int(number)), score=float(scores_N[number])) for number in best]


class FusedSearch:
    """Words and meaning together."""

    def __init__(self, store: DocumentStore, dense: DenseIndex) -> None:
        self.store, self.dense = store, dense

    def search(self, query: str, limit: int = 3) -> list[Passage]:
        """The best chunks by both. One that begins with the query stays first: a name says exactly what is meant."""
        by_words = self.store.search(query, max(limit, DEPTH))
        named = [one for one in by_words if one.score == float("inf")]
        known = {one.chunk for one in named}
        rest = fuse([by_words, self.dense.search(query, max(limit, DEPTH))])
        return [*named, *(one for one in rest if one.chunk not in known)][:limit]


def fuse(orders: Iterable[Sequence[Passage]]) -> list[Passage]:
    """Several orders as one; a passage scores 1 / (60 + rank) in each, ranks counted from 1."""
    scores: dict[int, float] = {}
    passages: dict[int, Passage] = {}
    for order in orders:
        for rank, one in enumerate(order, 1):
            scores[one.chunk] = scores.get(one.chunk, 0.0) + 1 / (_RANK + rank)
            passages[one.chunk] = one
    best = sorted(scores, key=lambda chunk: (-scores[chunk], chunk))
    return [replace(passages[chunk], score=scores[chunk]) for chunk in best]
