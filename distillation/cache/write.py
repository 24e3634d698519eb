"""A teacher's distributions over packed rows, to the disk: each row read once, in parts that a killed run keeps.

    cache = cache_teacher(checkpoint, rows, out, CacheConfig(), work)     # opens the teacher, and lets go of it
    cache = write_cache(model, rows, out, config, work, teacher=digest, tokenizer=tokenizer)

Draws depend on the seed and the row, and rows are read in the same batches however often the work was interrupted, so
a cache has the same bytes. Every predicted position of weight above 0 is stored, and no other.

    <work>/part-00000.safetensors   a finished part, under a key of everything that it depends on
    <out>/bits.npy      bytes of all rows (`codec`)      <out>/begin.npy   (N + 1,) int64 where each row begins
    <out>/positions.npy (N,) int32 stored positions      <out>/cache.json  the card
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from distillation.cache.codec import Bits, Codec, Integers, Kind
from distillation.cache.config import LEAST_MASS, MOST_BYTES, SLACK_BYTES, CacheConfig
from distillation.cache.draw import slice_rows, summary
from distillation.cache.read import CARD, Cache, read_cache
from distillation.cache.storing import fitting_codec, store_row
from distillation.training.array_folder import HEADER_BYTES, write_arrays
from distillation.training.row_file import RowFile, tokenizer_digest
from phases.architecture import check_head
from phases.checkpoint import Checkpoint
from phases.errors import ConfigError, DataError
from phases.storage import explain_os_errors, fsync_path, sha256_json
from phases.training.processes import device

BATCH = 8
"""Rows that the teacher reads at a time."""
DEPTHS = (8, 32)
"""Likeliest tokens whose mass the card tells, beside those that are stored."""
SAMPLE_ROWS = 16
"""Rows that the number of draws is measured on."""
ROW_BYTES = 12
"""Where a row begins, and its positions."""
_FORMAT = 2
Arrays = dict[str, npt.NDArray[Any]]


def cache_teacher(teacher: Checkpoint, rows: RowFile, out: Path, config: CacheConfig, work: Path) -> Cache:
    """The cache of a checkpoint over some rows: what is there already under the same key, or made now.

    The model lives inside this call only: a student that trains afterwards has the memory for itself.
    """
    tokenizer = teacher.tokenizer()
    if (out / CARD).is_file():
        found = read_cache(out, tokenizer)
        if found.card["key"] == _key(rows, config, teacher.digest, found.codec):
            shutil.rmtree(work, ignore_errors=True)  # of a run that was killed when all was done
            return found
    model = teacher.model().to(device())
    cache = write_cache(model, rows, out, config, work, teacher=teacher.digest, tokenizer=tokenizer)
    del model
    torch.cuda.empty_cache()  # else it stays this process's, and students train in others
    return cache


def write_cache(
    model: Any, rows: RowFile, out: Path, config: CacheConfig, work: Path, *, teacher: str, tokenizer: Any
) -> Cache:
    """Read the rows with `model`, whose digest is `teacher`, and write what it thinks; `work` is emptied at the end.

    Raises `ConfigError` for a teacher with another tokenizer than the rows', for a vocabulary that does not fit, and
    for `renormalised` where the stored tokens hold less than .95 of the mass.
    """
    check_head(model, str(out))
    codec = _codec(model, rows, config, tokenizer)
    key = _key(rows, config, teacher, codec)
    work.mkdir(parents=True, exist_ok=True)
    parts = list(_parts(model, rows, config, codec, work, key))
    whole = {name: np.concatenate([part[name] for part in parts]) for name in ("bits", "bytes", "positions")}
    seen = np.sum([part["seen"] for part in parts], axis=0)
    arrays = {"bits": whole["bits"], "positions": whole["positions"], "begin": np.cumsum([0, *whole["bytes"]])}
    card = _card(arrays, seen, rows, config, codec) | {"teacher": teacher, "key": key}
    mass = card["mass"][str(codec.size)]
    if config.method == "renormalised" and mass < LEAST_MASS:
        raise ConfigError(
            f"cache.method=renormalised: the {codec.size} likeliest tokens hold {mass:.3f} of the teacher's mass, and "
            f"{LEAST_MASS} is the least (the student would be overconfident); use `sampled`"
        )
    write_arrays(out, CARD, arrays, card)
    shutil.rmtree(work)
    return read_cache(out, tokenizer)


def _parts(model: Any, rows: RowFile, config: CacheConfig, codec: Codec, work: Path, key: str) -> Iterator[Arrays]:
    """All parts in their order: those that a killed run has left, and the others made now."""
    starts = range(0, len(rows), config.part_rows)
    for number, start in enumerate(tqdm(starts, desc="teacher cache", unit="part", leave=False, disable=None)):
        path = work / f"part-{number:05d}.safetensors"
        part = _read_part(path, key)
        if part is None:
            which = range(start, min(start + config.part_rows, len(rows)))
            part = _make_part(model, rows, which, config, codec)
            _write_part(path, key, part)
        yield part


def _codec(model: Any, rows: RowFile, config: CacheConfig, tokenizer: Any) -> Codec:
    own = tokenizer_digest(tokenizer)
    if own != rows.tokenizer:
        raise ConfigError(
            f"the teacher's tokenizer ({own[:12]}…) is not the rows' ({rows.tokenizer[:12]}…): distributions over "
            "tokens cannot be handed over; use a teacher of the same vocabulary, or learn from its answers"
        )
    vocabulary, head = int(rows.card["vocabulary"]), len(model.get_output_embeddings().weight)
    if head < vocabulary:
        raise ConfigError(
            f"the teacher has {head:,} outputs for a tokenizer of {vocabulary:,}: give a whole checkpoint"
        )
    counts_N = (rows.weight_NT > 0).sum(1)
    tokens, some = int(counts_N.sum()), np.flatnonzero(counts_N)
    if not tokens:
        raise DataError(f"{rows.path}: no position is predicted at a weight above 0, so there is nothing to store")
    sampled = config.method == "sampled"
    kind: Kind = "sampled" if sampled else "ghost"
    wanted = config.draws if sampled else config.likeliest
    overhead = (3 * HEADER_BYTES + ROW_BYTES * (len(rows) + 1)) / tokens
    chosen = np.unique(some[np.linspace(0, len(some) - 1, SAMPLE_ROWS).astype(int)])
    seen = _distributions(model, rows, chosen, config.tau, vocabulary)
    return fitting_codec(kind, vocabulary, wanted, MOST_BYTES - SLACK_BYTES - overhead, seen, config.seed)


def _key(rows: RowFile, config: CacheConfig, teacher: str, codec: Codec) -> str:
    return sha256_json(
        [_FORMAT, rows.digest, config.model_dump(mode="json"), teacher, codec.kind, codec.vocabulary, codec.size]
    )


def _make_part(model: Any, rows: RowFile, which: range, config: CacheConfig, codec: Codec) -> Arrays:
    """What is stored of some rows, with the sums of what was seen."""
    raw: list[Bits] = []
    counts: list[int] = []
    seen = np.zeros(2 + len(DEPTHS))
    for index, probability_PV in _distributions(model, rows, which, config.tau, codec.vocabulary):
        raw.append(store_row(codec, probability_PV, config.seed, index))
        counts.append(len(probability_PV))
        for some_PV in torch.split(probability_PV, slice_rows(codec.vocabulary)):
            seen += summary(some_PV, (codec.size, *DEPTHS))
    lengths = np.array([len(one) for one in raw], dtype=np.int64)
    return {"bits": np.concatenate(raw), "bytes": lengths, "positions": np.array(counts, dtype=np.int32), "seen": seen}


@torch.inference_mode()
def _distributions(
    model: Any, rows: RowFile, which: Sequence[int] | Integers, tau: float, vocabulary: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """(row, (P, V) float32 probabilities at its weighted positions), of ids that the tokenizer has."""
    head_VD = model.get_output_embeddings().weight[:vocabulary]
    for start in range(0, len(which), BATCH):
        batch = [int(row) for row in which[start : start + BATCH]]
        tokens = torch.from_numpy(rows.tokens_NT[batch].astype(np.int64)).to(head_VD.device)
        hidden_BTD = model.base_model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        for index, hidden_TD in zip(batch, hidden_BTD, strict=True):
            chosen = torch.from_numpy(rows.weight_NT[index] > 0).to(hidden_TD.device)
            yield index, ((hidden_TD[chosen] @ head_VD.T).float() / tau).softmax(1)


def _card(
    arrays: Arrays, seen: npt.NDArray[np.float64], rows: RowFile, config: CacheConfig, codec: Codec
) -> dict[str, Any]:
    tokens = int(arrays["positions"].sum())
    return {
        "method": config.method,
        "codec": [codec.kind, codec.vocabulary, codec.size],
        "tau": config.tau,
        "seed": config.seed,
        "rows": rows.digest,
        "tokenizer": rows.tokenizer,
        "tokens": tokens,
        "bytes_per_token": sum(array.nbytes + HEADER_BYTES for array in arrays.values()) / tokens,
        "entropy_nats": float(seen[0] / tokens),
        "mass": {str(depth): float(m / tokens) for depth, m in zip((codec.size, *DEPTHS), seen[1:], strict=True)},
    }


def _write_part(path: Path, key: str, tensors: Arrays) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with explain_os_errors(path):
        try:
            save_file(tensors, temporary, {"key": key})
            fsync_path(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_path(path.parent)


def _read_part(path: Path, key: str) -> Arrays | None:
    """A finished part; None where there is none, or one of something else."""
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return None
