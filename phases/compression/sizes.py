"""Bytes of a compressed checkpoint's file by what they are for, as its header has them."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from phases.compression.file_format import CODEBOOK, MATRIX, layout
from phases.compression.sealing import kinds_of, matrix_shapes
from phases.compression.verify import read_contents
from phases.packed.container import read_header
from phases.packed.plan import WEIGHTS, empty_model


@dataclass(frozen=True)
class CompressedBytes:
    """Bytes of every kind; they add up to the file's size."""

    codes: int = 0
    """Of all codecs: streams and packed codes, seeds, exponents and coefficients."""
    scales: int = 0
    """With what hyper-compression of scales needs, and centres."""
    outliers: int = 0
    """Columns that VPTQ keeps, and which they are."""
    codebooks: int = 0
    other_weights: int = 0
    """Norms, biases, and matrices that no codec has: float16."""
    header: int = 0
    """Names, settings of the codecs, digests, padding."""

    @property
    def total(self) -> int:
        """The size of the file, as `stat` gives it."""
        return sum(asdict(self).values())


def sizes(path: Path | str) -> CompressedBytes:
    """Bytes of a compressed checkpoint's file. Raises `CheckpointError` when its header is damaged."""
    file = Path(path) / WEIGHTS
    header, shapes = read_header(file), matrix_shapes(empty_model(path))
    kinds = kinds_of(read_contents(file, header), header)
    found = dict.fromkeys(asdict(CompressedBytes()), 0) | {"header": header.bytes}
    for name, entry in header.entries.items():
        if not name.endswith(MATRIX):
            found["codebooks" if name.startswith(CODEBOOK) else "other_weights"] += entry.bytes
            continue
        layer, left = name.removesuffix(MATRIX), entry.bytes
        for part, (dtype, shape) in layout(kinds[layer], shapes[layer]).items():
            size = 0 if shape is None else dtype.itemsize * math.prod(shape)
            found[_purpose(part)] += size
            left -= size
        found["codes"] += left  # the stream
    return CompressedBytes(**found)


def _purpose(part: str) -> str:
    if part.startswith("scale") or part == "centres":
        return "scales"
    return "outliers" if part in ("columns", "outliers") else "codes"
