"""Whether a compressed file is whole and holds what its model needs: asked before any of it is used."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from phases.compression.file_format import CODEBOOK, MATRIX, Contents
from phases.compression.sealing import kinds_of, matrix_shapes
from phases.errors import CheckpointError
from phases.packed.container import Entry, Header, read_header, refuse, verify_digest
from phases.packed.verify import CONFIG
from phases.storage import sha256_file

CONTENTS = "forge_compressed"
"""Key of the contents in the file's metadata, and the format's name in `config.json`."""


def metadata(contents: Contents, config_sha256: str) -> dict[str, str]:
    """What a file says of itself besides its digest."""
    return {"format": "pt", CONTENTS: contents.model_dump_json(exclude_defaults=True), CONFIG: config_sha256}


def verify_file(path: Path | str, model: Any) -> tuple[Contents, Header]:
    """Raise `CheckpointError`, which names the file and where known the tensor, unless a file fits a plain model.

    Every byte is read: its SHA-256, the `config.json` beside it, names, dtypes and shapes against the model's, and
    that codebooks, norms and biases are finite. What is in a matrix is for its codec to check, when it is opened.
    """
    verify_digest(path)
    header = read_header(path)
    config = Path(path).parent / "config.json"
    if not config.is_file() or header.metadata.get(CONFIG) != sha256_file(config):
        raise CheckpointError(f"{path}: the config.json beside it is not the one it was written with; restore both")
    contents = read_contents(path, header)
    _check_names(path, header.entries, model, contents)
    try:
        # transformers asks from within its `meta` device, where nothing has contents.
        with torch.device("cpu"), safe_open(path, framework="pt") as file:
            for name in header.entries:
                if not name.endswith(MATRIX) and not torch.isfinite(file.get_tensor(name)).all():
                    refuse(path, f"{name} is not finite")
    except SafetensorError as error:
        refuse(path, str(error))
    return contents, header


def read_contents(path: Path | str, header: Header) -> Contents:
    """What a file says of its matrices. Raises `CheckpointError` for what no codec has."""
    try:
        contents = Contents.parse(json.loads(header.metadata[CONTENTS]), CONTENTS)
        for kind in kinds_of(contents, header).values():
            kind.check()
    except (KeyError, IndexError, ValueError) as error:
        refuse(path, f"its header: {error}")
    return contents


def _check_names(path: Path | str, entries: Mapping[str, Entry], model: Any, contents: Contents) -> None:
    tied, matrices = model.all_tied_weights_keys, matrix_shapes(model)
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items() if name not in tied}
    for name, entry in entries.items():
        if name.endswith(MATRIX):
            layer = name.removesuffix(MATRIX)
            if layer not in matrices or expected.pop(f"{layer}.weight", None) is None:
                refuse(path, f"{name} is of no layer of a {type(model).__name__}")
            fits = entry.dtype == torch.uint8 and len(entry.shape) == 1
        elif name.startswith(CODEBOOK):
            continue
        elif name not in expected:
            refuse(path, f"{name} is no tensor of a {type(model).__name__}")
        else:
            fits = entry == Entry(torch.float16, expected.pop(name))
        if not fits:
            refuse(path, f"{name} is {entry.dtype} {list(entry.shape)}, which does not fit the model")
    books = {f"{CODEBOOK}{i}": (1 + c.residuals, c.codebook_size, c.vector) for i, c in enumerate(contents.codebooks)}
    found = {name: entry for name, entry in entries.items() if name.startswith(CODEBOOK)}
    for name in sorted(books.keys() | found.keys()):
        if name not in books or found.get(name) != Entry(torch.float16, books[name]):
            refuse(path, f"{name} is missing, left over or of another size than its settings say")
    for name in sorted(expected):
        refuse(path, f"{name} is missing")
