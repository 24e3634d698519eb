"""Make the data set: read, cut, split, decontaminate, train or load the tokenizer, pack, check for leaks, seal.

    from phases.data.config import DataConfig
    from phases.data.prepare import prepare_data
    data = prepare_data(DataConfig(), None, Path("checkpoints/laptop/data"))

A data directory that was made from the same config and the same files is returned as it is. Cost of the embedded
default: about 20 seconds on two cores.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from phases.checkpoint import load_tokenizer
from phases.data.card import data_card
from phases.data.config import DataConfig
from phases.data.leakage import check_leakage, leaking_passages
from phases.data.pack import Packed, pack_items, pack_text
from phases.data.sources import Files, read_source, resolve
from phases.data.split import Passage, passages_of, split_by_hash
from phases.data.tokenizer import train_tokenizer
from phases.dataset import CARD, SPLITS, Dataset, Split, open_dataset, seal_dataset
from phases.errors import DataError, LeakageError
from phases.fingerprint import source_fingerprint
from phases.storage import atomic_directory, sha256_file, sha256_json
from phases.tasks.generate import make_items
from phases.tasks.item import Item

Passages = dict[Split, list[Passage]]
Items = dict[Split, list[Item]]


def prepare_data(config: DataConfig, tokenizer: str | None, out: Path) -> Dataset:
    """Write the data set to `out`, or return the one there when nothing that it depends on has changed.

    `tokenizer` is a path or hub id to keep (that of the own base model), or None to train one. Raises `DataError` for
    data that cannot be used and `LeakageError` when held-out text stands in the training rows.
    """
    key = _key(config, tokenizer)
    if (out / CARD).is_file():
        data = open_dataset(out)
        if data.card.get("key") == key:
            return data
    with tqdm(total=6, desc="data", unit="step", leave=False, disable=None) as bar:
        passages, removed = _passages(config)
        bar.update()
        texts = {split: [p.text for p in passages[split]] for split in SPLITS}
        items = make_items(config.tasks, texts, config.seed)
        bar.update()
        chosen = load_tokenizer(tokenizer) if tokenizer else _tokenizer(config, texts["train"], items["train"])
        bar.update()
        streams = _pack(config, chosen, texts, items)
        bar.update()
        leakage = _check(config, chosen, texts, streams, items)
        bar.update()
        with atomic_directory(out) as folder:
            _write(folder, chosen, streams, items)
            removed["items_longer_than_a_row"] = sum(int((p.counts == 0).sum()) for p in streams.values())
            card = data_card(config, passages, streams, items, removed, leakage, len(chosen))
            seal_dataset(folder, {**card, "key": key})
        bar.update()
    return open_dataset(out)


def _key(config: DataConfig, tokenizer: str | None) -> str:
    """Hash of everything that the data depends on; files by content."""
    sources = [*config.sources, *config.validation, *config.test]
    patterns = [*(s.paths for s in sources if isinstance(s, Files)), *([t.path] for t in config.tasks.files)]
    files = [str(sha256_file(p)) for paths in patterns for p in resolve(tuple(paths))]
    own = sorted(Path(tokenizer).glob("*token*")) + sorted(Path(tokenizer).glob("chat*")) if tokenizer else []
    tokens = [sha256_file(path) for path in own if path.is_file()] or tokenizer
    source = source_fingerprint(__name__)
    return sha256_json([config.model_dump(mode="json"), tokens, files, sys.version, source])


def _passages(config: DataConfig) -> tuple[Passages, dict[str, int]]:
    """Passages by split after removing repeats and training text that repeats held-out text; what was removed."""

    def read(sources: Sequence[Any]) -> list[Any]:
        return [document for source in sources for document in read_source(source)]

    passages, repeated = passages_of(read(config.sources), config.passage_chars)
    if config.test:
        held_out = {s: passages_of(read(getattr(config, s)), config.passage_chars)[0] for s in SPLITS[1:]}
        splits: Passages = {"train": passages, **held_out}
    else:
        splits = split_by_hash(passages, config.validation_share, config.test_share)
    removed = {"repeated_passages": repeated}
    if config.decontaminate:
        removed["validation_passages_that_leaked"] = _decontaminate(splits, "validation", ("test",), config)
        removed["training_passages_that_leaked"] = _decontaminate(splits, "train", SPLITS[1:], config)
    _require_splits(splits)
    return splits, removed


def _decontaminate(splits: Passages, split: Split, against: Sequence[Split], config: DataConfig) -> int:
    """Drop the passages of `split` that the splits `against` overlap with; how many."""
    held = [p.text for s in against for p in splits[s]]
    own = [p.text for p in splits[split]]
    dropped = leaking_passages(held, own, config.ngram, config.max_overlap)
    splits[split] = [p for i, p in enumerate(splits[split]) if i not in dropped]
    return len(dropped)


def _require_splits(splits: Passages) -> None:
    total = sum(map(len, splits.values()))
    for split in SPLITS:
        if not splits[split]:
            raise DataError(
                f"data: the {split} split is empty ({total} passages in all); add text, lower data.passage_chars, "
                "or give data.validation and data.test"
            )


def _tokenizer(config: DataConfig, texts: Sequence[str], items: Sequence[Item]) -> Any:
    """Trained on the training split only, tasks included so that their words are whole tokens."""
    size, chosen = 0, []
    for text in texts:
        size += len(text)
        chosen.append(text)
        if size > config.tokenizer_bytes:
            break
    questions = [f"{item.prompt} {item.completion}" for item in items[:: max(1, len(items) // 4000)]]
    return train_tokenizer([*chosen, *questions], config.vocabulary)


def _pack(config: DataConfig, tokenizer: Any, texts: dict[Split, list[str]], items: Items) -> dict[str, Packed]:
    """Rows by `<split>.<stream>`. Raises `DataError` when a split's text does not fill one row."""
    streams: dict[str, Packed] = {}
    for split in SPLITS:
        packed = streams[f"{split}.text"] = pack_text(tokenizer, texts[split], config.block_tokens)
        if not len(packed.tokens_NT):
            raise DataError(
                f"data: the {split} split has less text than one row of {config.block_tokens} tokens; "
                "add text or lower data.block_tokens"
            )
        for stream in ("reasoning", "memory", "copying"):
            chosen = [item for item in items[split] if item.speciality == stream]
            if chosen:
                rows = streams[f"{split}.{stream}"] = pack_items(tokenizer, chosen, config.block_tokens)
                if not len(rows.tokens_NT):
                    raise DataError(
                        f"data: no {stream} item of the {split} split fits a row of {config.block_tokens} tokens; "
                        "raise data.block_tokens"
                    )
    return streams


def _check(
    config: DataConfig, tokenizer: Any, texts: dict[Split, list[str]], streams: dict[str, Packed], items: Items
) -> dict[str, Any]:
    """What is in the packed training rows, against what is held out; independent of the decontamination."""
    blocks = streams["train.text"].tokens_NT
    # Rows are joined in runs, or every n-gram across a row's end would escape.
    runs = (blocks[i : i + 64, :-1].reshape(-1) for i in range(0, len(blocks), 64))
    decoded = [tokenizer.decode(run, skip_special_tokens=False) for run in runs]
    held = texts["validation"] + texts["test"]
    worst = check_leakage(held, decoded, config.ngram, config.max_overlap)
    between = check_leakage(texts["test"], texts["validation"], config.ngram, config.max_overlap)
    train = {item.key for item in items["train"]}
    shared = [item for split in SPLITS[1:] for item in items[split] if item.key in train]
    if shared:
        raise LeakageError(
            f"data: {len(shared)} held-out task items stand in the training items (first: '{shared[0].prompt[:50]}'); "
            "remove the repeats from the task file"
        )
    return {
        "ngram": config.ngram,
        "max_overlap": config.max_overlap,
        "worst_overlap_with_train": round(worst, 4),
        "worst_overlap_of_test_with_validation": round(between, 4),
    }


def _write(folder: Path, tokenizer: Any, streams: dict[str, Packed], items: Items) -> None:
    (folder / "blocks").mkdir()
    (folder / "items").mkdir()
    for name, packed in streams.items():
        np.save(folder / "blocks" / f"{name}.npy", packed.tokens_NT, allow_pickle=False)
        np.save(folder / "blocks" / f"{name}.mask.npy", packed.mask_NT, allow_pickle=False)
        if name.endswith(".text"):
            np.save(folder / "blocks" / f"{name}.bytes.npy", packed.bytes_N, allow_pickle=False)
    for split in SPLITS:
        lines = "".join(item.model_dump_json() + "\n" for item in items[split])
        (folder / "items" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    tokenizer.save_pretrained(folder / "tokenizer")
