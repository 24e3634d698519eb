"""The data card: what the data is, where it came from, what was removed, and how big it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from phases.data.config import DataConfig
from phases.data.pack import Packed
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
    return {
        "block_tokens": config.block_tokens,
        "vocabulary": vocabulary,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "sources": _texts(passages, streams) + _tasks(items, streams),
        "splits": {split: _split(split, passages[split], streams, items[split]) for split in SPLITS},
        "removed": dict(removed),
        "leakage": dict(leakage),
    }


def _texts(passages: Mapping[Split, Sequence[Passage]], streams: Mapping[str, Packed]) -> list[dict[str, Any]]:
    """One entry a source."""
    counted = [
        (passage, int(tokens))
        for split in SPLITS
        for passage, tokens in zip(passages[split], streams[f"{split}.text"].counts, strict=True)
    ]
    entries = []
    for name in sorted({p.source for p, _ in counted}):
        own = [(p, tokens) for p, tokens in counted if p.source == name]
        entries.append(
            {
                "name": name,
                "licence": own[0][0].licence,
                "passages": len(own),
                "bytes": sum(len(p.text.encode()) for p, _ in own),
                "tokens": sum(tokens for _, tokens in own),
                "digest": sha256_json(sorted(content_hash(p.text).hex() for p, _ in own)),
            }
        )
    return entries


def _tasks(items: Mapping[Split, Sequence[Item]], streams: Mapping[str, Packed]) -> list[dict[str, Any]]:
    """One entry a task; the tokens are those in the packed rows (multiple choice is only asked, never packed)."""
    counted: list[tuple[Item, int]] = []
    for split in SPLITS:
        for speciality in sorted({item.speciality for item in items[split]}):
            own = [item for item in items[split] if item.speciality == speciality]
            packed = streams.get(f"{split}.{speciality}")
            tokens = packed.counts.tolist() if packed else [0] * len(own)
            counted += zip(own, tokens, strict=True)
    entries = []
    for name, speciality in sorted({(item.task, item.speciality) for item, _ in counted}):
        mine = [(i, tokens) for i, tokens in counted if (i.task, i.speciality) == (name, speciality)]
        entries.append(
            {
                "name": f"{speciality}/{name}",
                "licence": mine[0][0].licence,
                "items": len(mine),
                "tokens": sum(tokens for _, tokens in mine),
                "digest": sha256_json(sorted(i.key for i, _ in mine)),
            }
        )
    return entries


def _split(
    split: Split, passages: Sequence[Passage], streams: Mapping[str, Packed], items: Sequence[Item]
) -> dict[str, Any]:
    rows = {name.split(".")[1]: len(p.tokens_NT) for name, p in streams.items() if name.startswith(f"{split}.")}
    return {"passages": len(passages), "items": len(items), "rows": rows}
