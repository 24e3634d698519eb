"""The data card: what the data is, where it came from, what was removed, and how big it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from phases.data.config import DataConfig
from phases.data.pack import PADDING, Packed
from phases.data.split import Passage, content_hash
from phases.dataset import SPLITS, Split
from phases.storage import sha256_json
from phases.tasks.item import Item


def data_card(
    config: DataConfig,
    passages: Mapping[Split, Sequence[Passage]],
    streams: Mapping[str, Packed],
    items: Mapping[Split, Sequence[Item]],
    removed: Mapping[str, int],
    leakage: Mapping[str, Any],
    vocabulary: int,
) -> dict[str, Any]:
    """The card as JSON values; `sources` has one entry a text source and a task."""
    total_bytes = sum(len(p.text.encode()) for split in SPLITS for p in passages[split])
    total_tokens = sum(packed.tokens_NT.size for name, packed in streams.items() if name.endswith(".text"))
    return {
        "block_tokens": config.block_tokens,
        "vocabulary": vocabulary,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "sources": _texts(passages, total_tokens / max(1, total_bytes)) + _tasks(items, streams),
        "splits": {split: _split(split, passages[split], streams, items[split]) for split in SPLITS},
        "removed": dict(removed),
        "leakage": dict(leakage),
    }


def _texts(passages: Mapping[Split, Sequence[Passage]], tokens_per_byte: float) -> list[dict[str, Any]]:
    """One entry a source; its tokens by its share of the bytes (rows run across sources)."""
    every = [p for split in SPLITS for p in passages[split]]
    entries = []
    for name in sorted({p.source for p in every}):
        own = [p for p in every if p.source == name]
        size = sum(len(p.text.encode()) for p in own)
        entries.append(
            {
                "name": name,
                "licence": own[0].licence,
                "passages": len(own),
                "bytes": size,
                "tokens": round(size * tokens_per_byte),
                "digest": sha256_json(sorted(content_hash(p.text).hex() for p in own)),
            }
        )
    return entries


def _tasks(items: Mapping[Split, Sequence[Item]], streams: Mapping[str, Packed]) -> list[dict[str, Any]]:
    """One entry a task; its tokens by its share of its stream's items."""
    every = [item for split in SPLITS for item in items[split]]
    entries = []
    for name, speciality in sorted({(item.task, item.speciality) for item in every}):
        own = [item for item in every if item.task == name and item.speciality == speciality]
        in_stream = sum(item.speciality == speciality for item in every)
        tokens = sum(_filled(streams[f"{s}.{speciality}"]) for s in SPLITS if f"{s}.{speciality}" in streams)
        entries.append(
            {
                "name": f"{speciality}/{name}",
                "licence": own[0].licence,
                "items": len(own),
                "tokens": round(tokens * len(own) / in_stream),
                "digest": sha256_json(sorted(item.key for item in own)),
            }
        )
    return entries


def _filled(packed: Packed) -> int:
    return int((packed.mask_NT != PADDING).sum())


def _split(
    split: Split, passages: Sequence[Passage], streams: Mapping[str, Packed], items: Sequence[Item]
) -> dict[str, Any]:
    rows = {name.split(".")[1]: len(p.tokens_NT) for name, p in streams.items() if name.startswith(f"{split}.")}
    return {"passages": len(passages), "items": len(items), "rows": rows}
