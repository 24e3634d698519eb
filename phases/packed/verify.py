"""Whether a packed file is whole and holds what its model needs: asked before any of it is used."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from phases.errors import CheckpointError
from phases.packed.container import Entry, Header, read_header, refuse, verify_digest
from phases.packed.layout import CODECS
from phases.packed.model import entries, packed_matrices
from phases.packed.settings import PackedSettings
from phases.storage import sha256_file

SETTINGS = "forge_ternary"
"""Key of the settings in the file's metadata."""


CONFIG = "config_sha256"
"""Key of the SHA-256 of the `config.json` beside the file: with another one the same weights are another model."""
NO_DIGEST = "0" * 64


def metadata(settings: PackedSettings, config_sha256: str = NO_DIGEST) -> dict[str, str]:
    """What a packed file says of itself besides its digest. Its length does not depend on the digest of the config."""
    return {"format": "pt", SETTINGS: settings.model_dump_json(), CONFIG: config_sha256}


def verify_file(path: Path | str, model: Any, settings: PackedSettings) -> None:
    """Raise `CheckpointError`, which names the file and where known the tensor, unless a file fits a packed model.

    Every byte is read: its SHA-256, the settings against those of `config.json`, names, dtypes and shapes against the
    model's, and that codes are codes and scales are finite and not negative.
    """
    verify_digest(path)
    header = read_header(path)
    if header.metadata.get(SETTINGS) != metadata(settings)[SETTINGS]:
        raise CheckpointError(
            f"{path}: packed as {header.metadata.get(SETTINGS)}, but config.json says {settings.model_dump_json()}; "
            "restore both from one copy"
        )
    config = Path(path).parent / "config.json"
    if not config.is_file() or header.metadata.get(CONFIG) != sha256_file(config):
        raise CheckpointError(f"{path}: the config.json beside it is not the one it was packed with; restore both")
    _check_names(path, header, model)
    try:
        # transformers asks from within its `meta` device, where nothing has contents.
        with torch.device("cpu"), safe_open(path, framework="pt") as file:
            _check_contents(path, file, model, header)
    except SafetensorError as error:
        refuse(path, str(error))


def _check_names(path: Path | str, header: Header, model: Any) -> None:
    expected = entries(model)
    packed = {f"{name}.{part}" for name in packed_matrices(model) for part in ("codes", "scale")}
    for name in sorted(expected.keys() | header.entries.keys()):
        found, wanted = header.entries.get(name), expected.get(name)
        if wanted is None:
            refuse(path, f"{name} is no tensor of a {type(model).__name__}")
        if found is None:
            refuse(path, f"{name} is missing")
        fits = found.dtype == wanted.dtype if name in packed else found.dtype.is_floating_point
        if not fits or found.shape != wanted.shape:
            refuse(path, f"{name} is {_text(found)}, {_text(wanted)} expected")


def _check_contents(path: Path | str, file: Any, model: Any, header: Header) -> None:
    matrices = packed_matrices(model)
    for name in header.entries:
        module, _, part = name.rpartition(".")
        tensor = file.get_tensor(name)
        if part == "codes" and module in matrices:
            try:
                CODECS[matrices[module].layout].check(tensor, matrices[module].shape)
            except ValueError as error:
                refuse(path, f"{name}: {error}")
        elif not torch.isfinite(tensor).all():
            refuse(path, f"{name} is not finite")
        elif part == "scale" and module in matrices and bool((tensor < 0).any()):
            refuse(path, f"{name} is negative")


def _text(entry: Entry) -> str:
    return f"{str(entry.dtype).removeprefix('torch.')} {list(entry.shape)}"
