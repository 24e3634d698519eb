"""A card that proves a folder: what is in it, every file's hash, and one digest over it all.

seal_folder(path, "data.json", {"block_tokens": 256})
card = open_sealed(path, "data.json", "run again")
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phases.errors import DataError
from phases.storage import sha256_file, sha256_json


def seal_folder(path: Path, name: str, card: Mapping[str, Any]) -> None:
    """Write the card `name` over a filled folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != name)
    body = {**card, "files": {str(file.relative_to(path)): sha256_file(file) for file in files}}
    full = {**body, "digest": sha256_json(body)}
    text = json.dumps(full, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (path / name).write_text(text, encoding="utf-8")


def open_sealed(path: Path, name: str, remedy: str, missing: str = "") -> dict[str, Any]:
    """The verified card. Raises `DataError` that names the missing or altered file and says the remedy.

    `missing`: what to say instead where there is no card at all.
    """
    try:
        card = json.loads((path / name).read_text(encoding="utf-8"))
        whole = sha256_json({key: value for key, value in card.items() if key != "digest"}) == card["digest"]
        files = dict(card["files"])
    except FileNotFoundError:
        raise DataError(missing or f"{path / name}: missing; {remedy}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        whole, files = False, {}
    if not whole:
        raise DataError(f"{path / name}: altered or truncated; delete {path} and {remedy}")
    for file, digest in files.items():
        if not (path / file).is_file():
            raise DataError(f"{path / file}: missing; delete {path} and {remedy}")
        if sha256_file(path / file) != digest:
            raise DataError(f"{path / file}: altered or truncated; delete {path} and {remedy}")
    return dict(card)
