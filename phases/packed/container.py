"""The packed file as safetensors: a header that carries the SHA-256 of the whole file, then the tensors without gaps.

    8 bytes   length of the header, little-endian
    header    JSON: {"__metadata__":{"forge_sha256":"<64 hex digits>", …}, "<tensor>": {dtype, shape, data_offsets}, …},
              padded with spaces, so that the tensors begin at a multiple of 64 bytes
    tensors   wide dtypes first, then by name, so that each is aligned

The digest stands first, at a place that does not depend on what follows, and is taken over the file with 64 zeros in
its own place. Any safetensors reader opens the file; this one writes it with a size that is known beforehand.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

from phases.errors import CheckpointError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
ALIGNMENT = 64
"""Where the tensors may begin: mapped into memory, they lie as those do that torch allocates."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_PREFIX = b'{"__metadata__":{"forge_sha256":"'
_BLANK = b"0" * 64
_START, _END = 8 + len(_PREFIX), 8 + len(_PREFIX) + 64
_MEND = "restore it from a copy or pack the ternary checkpoint again"


@dataclass(frozen=True)
class Entry:
    """One tensor of a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its bytes in the file."""
        return self.dtype.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]
    """In the order of the file."""
    bytes: int
    """Of the header with its length: where the tensors begin."""


def refuse(path: Path | str, reason: str) -> NoReturn:
    """Raise the `CheckpointError` of a damaged file."""
    raise CheckpointError(f"{path}: truncated or altered ({reason}); {_MEND}")


def build_header(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> tuple[bytes, tuple[str, ...]]:
    """The first bytes of a file, the digest left blank, and the order of its tensors."""
    order = tuple(sorted(entries, key=lambda name: (-entries[name].dtype.itemsize, name)))
    body: dict[str, object] = {"__metadata__": {"forge_sha256": _BLANK.decode(), **metadata}}
    offset = 0
    for name in order:
        entry = entries[name]
        offsets = [offset, offset + entry.bytes]
        body[name] = {"dtype": _NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": offsets}
        offset = offsets[1]
    text = json.dumps(body, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, order


def write_file(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file with its digest."""
    entries = {name: Entry(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    head, order = build_header(entries, metadata)
    digest = hashlib.sha256(head)
    with path.open("wb") as file:
        file.write(head)
        for name in order:
            # Through a view as bytes: numpy has no bfloat16.
            raw = tensors[name].contiguous().flatten().view(torch.uint8).numpy().data
            file.write(raw)
            digest.update(raw)
        file.seek(_START)
        file.write(digest.hexdigest().encode())


def read_header(path: Path | str) -> Header:
    """Header of a file. Raises `CheckpointError` where it is not one that `build_header` could have made."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, size))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); {_MEND}") from None
    if size < _END or length > size - 8 or not text.startswith(_PREFIX):
        refuse(path, "not a packed file from its first bytes on")
    try:
        body = json.loads(text)
        metadata = body.pop("__metadata__")
        entries = {name: Entry(DTYPES[e["dtype"]], tuple(e["shape"])) for name, e in body.items()}
        whole, order = build_header(entries, {k: v for k, v in metadata.items() if k != "forge_sha256"})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        refuse(path, "its header is not one of a packed file")
    written = 8 + length == len(whole) and whole[_END:] == text[_END - 8 :]
    if not written or len(whole) + sum(e.bytes for e in entries.values()) != size:
        refuse(path, f"{size:,} bytes and its header do not belong together")
    return Header(metadata, {name: entries[name] for name in order}, len(whole))


def verify_digest(path: Path | str) -> None:
    """Raise `CheckpointError` unless a file's bytes are the ones it was written with."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(_END)
            digest = hashlib.sha256(head[:_START] + _BLANK)
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); {_MEND}") from None
    if head[8:_START] != _PREFIX or head[_START:] != digest.hexdigest().encode():
        refuse(path, f"its bytes have SHA-256 {digest.hexdigest()[:12]}…, another than it says")
