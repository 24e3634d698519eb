"""A compressed model's file: one tensor of bytes a matrix, codebooks and norms beside them, all settings in its header.

    <module>.stored     U8: what the codec left, tensor after tensor, the entropy-coded one last
    codebooks.<i>       F16: of the i-th `VPTQ` settings, shared by their matrices
    <name>              F16: norms, biases, and matrices that no codec has
    metadata            `Contents` as JSON: the codecs in use, and which matrix has which

    tensors, contents = file_tensors(stored, activations=True)
    encoded = split(tensors["lm_head.stored"], contents.kinds[0], (2048, 128))

Lengths within `<module>.stored` are not stored: they follow from the codec and the shape of the matrix, but for one
stream that takes what is left. So the file has the bytes of its tensors and a header, which names every tensor once.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch

from phases.bitnet.lattice import groups_of
from phases.compression.bits import bits_for
from phases.compression.codec import Encoded
from phases.compression.hyper import Hyper
from phases.compression.scales import SCALES, scale_codec
from phases.compression.seedlm import BITS, SeedLM
from phases.compression.stored import STREAM, Coding, Stored
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.strict import StrictModel

MATRIX, CODEBOOK = ".stored", "codebooks."
CODECS: dict[str, type[Coding]] = {codec.name: codec for codec in (Ternary, VPTQ, SeedLM, Hyper)}
Part = tuple[torch.dtype, tuple[int, ...] | None]
"""dtype and shape of a stored tensor; None: a row of what bytes are left."""


class Kind(StrictModel):
    """How a matrix is stored."""

    codec: Literal["ternary", "vptq", "seedlm", "hyper"]
    """Its name."""
    settings: dict[str, bool | int | float | str | None]
    """Of the codec, all of them: its defaults may change."""
    stream: bool = False
    """Whether the indices of VPTQ are entropy-coded."""
    scale_bits: int | None = None
    """Of scales that are hyper-compressed; empty: float16."""

    @property
    def coding(self) -> Coding:
        """The codec."""
        return CODECS[self.codec](**self.settings)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise `ValueError` for settings that the codec does not have."""
        try:
            layout(self, (1, 1))
        except (TypeError, ArithmeticError) as error:
            raise ValueError(f"{self.codec}: {error}") from None


class Contents(StrictModel):
    """What a file says of its matrices."""

    activations: bool
    """Whether the model was trained with activations of 8 bits, so that kernels may round them."""
    kinds: tuple[Kind, ...]
    """In use."""
    kind_of: tuple[int, ...]
    """Index of the kind of every matrix, the names of matrices in order."""

    @property
    def codebooks(self) -> list[VPTQ]:
        """The settings that have one, in the order of their numbers."""
        return list(dict.fromkeys(kind.coding for kind in self.kinds if isinstance(kind.coding, VPTQ)))


def file_tensors(stored: Stored, activations: bool) -> tuple[dict[str, torch.Tensor], Contents]:
    """The tensors of a model's file by name, and what it says of them.

    Raises `ValueError` for matrices that are no `….weight`, codebooks that are missing, and tensors that the codecs
    do not leave.
    """
    names = sorted(stored.codecs, key=tensor_of)
    kinds = {name: kind_of(stored.codecs[name], stored.encoded[name]) for name in names}
    every: list[Kind] = []
    for kind in kinds.values():
        if kind not in every:
            every.append(kind)
    contents = Contents(
        activations=activations, kinds=tuple(every), kind_of=tuple(every.index(kind) for kind in kinds.values())
    )
    if set(contents.codebooks) != set(stored.codebooks):
        raise ValueError(f"{len(stored.codebooks)} codebooks for {len(contents.codebooks)} settings in use")
    books = {f"{CODEBOOK}{i}": stored.codebooks[codec] for i, codec in enumerate(contents.codebooks)}
    matrices = {tensor_of(name): join(stored.encoded[name], kind) for name, kind in kinds.items()}
    return {**matrices, **books, **stored.plain}, contents


def tensor_of(name: str) -> str:
    """The tensor that holds a weight."""
    if not name.endswith(".weight"):
        raise ValueError(f"{name}: a codec is for the weight of a layer")
    return name.removesuffix(".weight") + MATRIX


def kind_of(codec: Coding, encoded: Encoded) -> Kind:
    """How a matrix is stored, as its tensors tell."""
    bits = encoded.tensors.get(f"{SCALES}bits")
    scale_bits = None if bits is None else int(bits)
    if isinstance(codec, Ternary) and "scales" not in encoded.tensors:
        scale_bits = codec.scale_bits
    chosen: Any = codec.name  # any text to the type checker
    return Kind(codec=chosen, settings=asdict(codec), stream=STREAM in encoded.tensors, scale_bits=scale_bits)


def join(encoded: Encoded, kind: Kind) -> torch.Tensor:
    """(bytes,) uint8 of a matrix. Raises `ValueError` for tensors that this kind does not have."""
    parts, tensors = layout(kind, encoded.shape), encoded.tensors
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    for name in sorted(parts.keys() | found.keys()):
        wanted = parts.get(name)
        if wanted is None or name not in found or found[name] != (wanted[0], wanted[1] or found[name][1]):
            raise ValueError(f"{kind.codec} of shape {encoded.shape}: {name} is {found.get(name)}, not {wanted}")
    return torch.cat([tensors[name].contiguous().flatten().view(torch.uint8) for name in parts])


def split(raw: torch.Tensor, kind: Kind, shape: tuple[int, ...]) -> Encoded:
    """What `join` was given. Raises `ValueError` for another number of bytes; contents are the codec's to check."""
    parts = layout(kind, shape)
    sizes = {name: dtype.itemsize * _count(wanted) for name, (dtype, wanted) in parts.items() if wanted is not None}
    left = len(raw) - sum(sizes.values())
    if left < 0 or (left and len(sizes) == len(parts)):
        raise ValueError(f"{len(raw):,} bytes, {sum(sizes.values()):,} are expected of {kind.codec} {shape}")
    tensors, start = {}, 0
    for name, (dtype, wanted) in parts.items():
        end = start + sizes.get(name, left)
        # A copy, as a view as another dtype begins only where that is aligned.
        tensors[name] = raw[start:end].clone().view(dtype).view(wanted or (-1,))
        start = end
    return Encoded(kind.codec, shape, tensors)


def layout(kind: Kind, shape: tuple[int, ...]) -> dict[str, Part]:
    """The stored tensors of a matrix of this shape, in the order of the file."""
    codec, (rows, width) = kind.coding, shape
    if isinstance(codec, Ternary):
        groups = (1, 1) if codec.group is None else (rows, groups_of(width, codec.group))
        return {**_scales(groups, kind.scale_bits), "codes": (torch.uint8, None)}
    if isinstance(codec, VPTQ):
        return _of_vptq(codec, kind, rows, width)
    packed = {name: _packed(rows * count, bits) for name, (count, bits) in numbers_of_a_row(codec, width).items()}
    if isinstance(codec, SeedLM):
        return {**packed, "scale": (torch.float16, (1,))}
    groups = (1, 1) if codec.group is None else (rows, groups_of(width, codec.group))
    named = ("scales", "centres") if codec.centred else ("scales",)
    return {**packed, **dict.fromkeys(named, (torch.float16, groups))}


def numbers_of_a_row(codec: SeedLM | Hyper, width: int) -> dict[str, tuple[int, int]]:
    """(numbers a row of the matrix, bits of each) of the packed tensors, which rows follow one another in."""
    if isinstance(codec, Hyper):
        return {"codes": (-(-width // codec.dimension), round(codec.dimension * codec.bits))}
    blocks = -(-width // codec.block)
    return {
        "seeds": (blocks, codec.register),
        "exponents": (blocks, BITS),
        "coefficients": (blocks * codec.latent, BITS),
    }


def _of_vptq(codec: VPTQ, kind: Kind, rows: int, width: int) -> dict[str, Part]:
    outliers = int(codec.outliers * width)
    codes = (1 + codec.residuals) * -(-rows * (width - outliers) // codec.vector)
    parts = _scales((rows if codec.scales == "row" else 1,), kind.scale_bits)
    if kind.scale_bits is not None:
        parts[f"{SCALES}bits"] = (torch.uint8, (1,))
    if outliers:
        parts["columns"] = _packed(outliers, bits_for(width))
        parts["outliers"] = (torch.float16, (rows, outliers))
    if kind.stream:
        return {**parts, STREAM: (torch.uint8, None)}
    return {**parts, "codes": _packed(codes, bits_for(codec.codebook_size))}


def _scales(shape: tuple[int, ...], bits: int | None) -> dict[str, Part]:
    if bits is None:
        return {"scales": (torch.float16, shape)}
    coded = Kind(codec="hyper", settings=asdict(scale_codec(bits)))
    return {f"{SCALES}{name}": part for name, part in layout(coded, (1, _count(shape))).items()}


def _packed(count: int, bits: int) -> Part:
    return torch.uint8, (-(-count * bits // 8),)


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def books_of(contents: Contents, tensors: Mapping[str, torch.Tensor]) -> dict[VPTQ, torch.Tensor]:
    """The codebooks among a file's tensors."""
    return {codec: tensors[f"{CODEBOOK}{i}"] for i, codec in enumerate(contents.codebooks)}
