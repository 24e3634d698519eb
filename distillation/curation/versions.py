"""Versions of a data set: named by content, with a card that says where every record came from and went.

    card = write_version(folder, curated, recipe=config, parent="", count_tokens=None)
    records, card = read_version(folder)

A version is the SHA-256 of its sorted record keys, the recipe and the parent version. `records.jsonl` has a record a
line, sorted by key and led by it; `version.json` has counts in and out of every step, lineage, licences, tokens and
findings. Both appear at once or not at all, and reading names what was altered since.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distillation.curation.curate import Curated
from distillation.curation.measures import count, diversity
from distillation.record import Record
from distillation.records.folder import line_of, parse_line
from phases.errors import DataError
from phases.storage import atomic_directory, sha256_file, sha256_json, write_json
from phases.strict import StrictModel

RECORDS, CARD = "records.jsonl", "version.json"
Recipe = StrictModel | dict[str, Any]


def version(records: Sequence[Record], recipe: Recipe, parent: str = "") -> str:
    """SHA-256 over the sorted keys, the recipe and the parent version."""
    return _version([record.key for record in records], _plain(recipe), parent)


def write_version(
    folder: Path,
    curated: Curated,
    recipe: Recipe,
    *,
    parent: str = "",
    seed: int = 0,
    count_tokens: Callable[[str], int] | None = None,
) -> dict[str, Any]:
    """Write a version to `folder`, which is replaced, and return its card."""
    keyed = sorted((record.key, i) for i, record in enumerate(curated.records))
    with atomic_directory(folder) as out:
        with (out / RECORDS).open("w", encoding="utf-8") as file:
            file.writelines(line_of(curated.records[i], key) + "\n" for key, i in keyed)
        card = _card(curated, _plain(recipe), parent, seed, count_tokens)
        card["records_sha256"] = sha256_file(out / RECORDS)
        card["card_sha256"] = sha256_json(card)
        write_json(out / CARD, card)
    return card


def read_version(folder: Path) -> tuple[list[Record], dict[str, Any]]:
    """The records and the card of a version. Raises `DataError` that names the line or file that was altered."""
    card = _read_card(folder)
    path = folder / RECORDS
    if not path.is_file():
        raise DataError(f"{path}: missing; write the data set's version again")
    with path.open("rb") as file:
        records = [parse_line(line, f"{path}: line {i}") for i, line in enumerate(file, start=1)]
    if len(records) != card["records"]:
        raise DataError(f"{path}: altered ({len(records)} records, its card says {card['records']}); write it again")
    if version(records, card["recipe"], card["parent"]) != card["version"]:
        raise DataError(
            f"{path}: altered (its records are not those of version {card['version'][:12]}); write it again"
        )
    if sha256_file(path) != card["records_sha256"]:
        raise DataError(f"{path}: altered (sources, weights, licences or order of records); write it again")
    return records, card


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    if not path.is_file():
        raise DataError(f"{path}: missing; {folder} is not a data set's version")
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        told = card.pop("card_sha256")
    except (ValueError, KeyError, AttributeError):
        raise DataError(f"{path}: altered (not a card); write the version again") from None
    if sha256_json(card) != told:
        raise DataError(f"{path}: altered since it was written; write the version again")
    return {**card, "card_sha256": told}


def _card(
    curated: Curated, recipe: dict[str, Any], parent: str, seed: int, count_tokens: Callable[[str], int] | None
) -> dict[str, Any]:
    records = curated.records
    return {
        "version": version(records, recipe, parent),
        "parent": parent,
        "recipe": recipe,
        "records": len(records),
        "answered": sum(bool(record.completion) for record in records),
        "groups": _counts(record.group for record in records),
        "licences": _counts(record.licence for record in records),
        "teachers": _counts(record.teacher or "none" for record in records),
        "sources": _counts(record.source.rpartition(":")[0] or record.source or "none" for record in records),
        "tokens": None if count_tokens is None else asdict(count(records, count_tokens)),
        "diversity": asdict(diversity(records, seed)),
        "steps": [step.as_json() for step in curated.steps],
    }


def _counts(names: Any) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _plain(recipe: Recipe) -> dict[str, Any]:
    plain = recipe.model_dump(mode="json") if isinstance(recipe, StrictModel) else recipe
    return dict(json.loads(json.dumps(plain)))


def _version(keys: Sequence[str], recipe: dict[str, Any], parent: str) -> str:
    content = hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()
    return sha256_json({"records": content, "recipe": sha256_json(recipe), "parent": parent})
