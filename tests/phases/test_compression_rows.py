"""Stored matrices row by row, and as the bytes of a file: what the codec decodes, bit for bit."""

from dataclasses import replace

import pytest
import torch

from phases.compression.codec import Encoded
from phases.compression.file_format import Kind, join, kind_of, layout, split
from phases.compression.hyper import Hyper
from phases.compression.rows import Rows, VectorRows, rows_of
from phases.compression.seedlm import SeedLM
from phases.compression.stored import Coding, expanded, squeezed
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ

CASES: list[tuple[Coding, int | None]] = [
    (Ternary(group=16), None),
    (Ternary(group=None), None),
    (Ternary(threshold=0.9, group=8, scale_bits=16), None),
    (SeedLM(register=6, block=8, refined=2), None),
    (SeedLM(register=7, block=5, latent=2, refined=2), None),
    (Hyper(bits=3, group=12), None),
    (Hyper(bits=2.5, group=None, centred=True), None),
    (Hyper(bits=2, dimension=3, group=9, centred=True), None),
    (VPTQ(vector=4, codebook_size=8, iterations=2), None),
    (VPTQ(vector=4, codebook_size=8, iterations=2), 8),
    (VPTQ(vector=6, codebook_size=16, scales="matrix", iterations=2), 8),
    (VPTQ(vector=5, codebook_size=300, iterations=1), 4),
    (VPTQ(vector=7, codebook_size=8, residuals=2, outliers=0.1, iterations=2), 5),
]
"""Codecs, and bits of scales where VPTQ's are squeezed; None: nothing is."""


def matrix_of(codec: Coding, bits: int | None) -> tuple[Encoded, torch.Tensor | None, torch.Tensor, Rows]:
    """(what is stored, its codebook, what it decodes to, what is kept)."""
    weight_OI = torch.randn(61, 35)
    if not isinstance(codec, VPTQ):
        encoded = codec.encode(weight_OI)
        return encoded, None, codec.decode(encoded), rows_of(codec, encoded)
    shared = codec.encode_together({"weight": weight_OI})
    encoded, book = shared.matrices["weight"], shared.codebook_RKV
    encoded = encoded if bits is None else squeezed(encoded, codec, bits)
    return encoded, book, codec.decode(expanded(encoded, codec), book), rows_of(codec, encoded, book.float())


@pytest.mark.parametrize(("codec", "bits"), CASES, ids=str)
def test_rows_are_those_of_the_decoded_matrix(codec: Coding, bits: int | None) -> None:
    _, _, decoded, matrix = matrix_of(codec, bits)
    assert matrix.shape == (61, 35) and matrix.bytes < 2 * decoded.numel()
    for index in (slice(None), slice(0, 1), slice(7, 50), slice(60, 99), slice(5, 5), torch.tensor([60, 0, 3, 3])):
        assert torch.equal(matrix.rows(index), decoded[index])
    assert matrix.rows(torch.zeros(0, dtype=torch.int64)).shape == (0, 35)
    for wrong in (-1, 61):
        with pytest.raises(IndexError):
            matrix.rows(torch.tensor([3, wrong]))


@pytest.mark.parametrize(("codec", "bits"), CASES, ids=str)
def test_as_bytes_a_matrix_has_those_of_its_tensors(codec: Coding, bits: int | None) -> None:
    encoded = matrix_of(codec, bits)[0]
    kind = kind_of(codec, encoded)
    raw, again = join(encoded, kind), Kind.model_validate_json(kind.model_dump_json(exclude_defaults=True))
    assert raw.dtype == torch.uint8 and len(raw) == encoded.bytes and again == kind and again.coding == codec
    found = split(raw, again, encoded.shape)
    assert found.tensors.keys() == encoded.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in encoded.tensors.items())
    assert list(layout(kind, encoded.shape))[-1] in ("codes", "stream", "scale", "scales", "centres")
    with pytest.raises(ValueError):
        codec.decode(split(raw[:-1], kind, encoded.shape))
    with pytest.raises(ValueError, match="bytes|damaged"):
        codec.decode(split(torch.cat((raw, raw[:1])), kind, encoded.shape))


def test_tensors_of_another_kind_are_not_joined() -> None:
    codec = Hyper(group=12)
    encoded = codec.encode(torch.randn(8, 12))
    kind = kind_of(codec, encoded)
    with pytest.raises(ValueError, match="scales is"):
        join(replace(encoded, tensors={"codes": encoded.tensors["codes"]}), kind)
    with pytest.raises(ValueError, match="more is"):
        join(replace(encoded, tensors={**encoded.tensors, "more": torch.zeros(1)}), kind)
    with pytest.raises(ValueError, match="codes is"):
        join(replace(encoded, shape=(8, 24)), kind)


def test_codes_take_a_byte_where_the_codebook_is_small() -> None:
    for size, dtype in ((256, torch.uint8), (257, torch.int16)):
        matrix = matrix_of(VPTQ(vector=4, codebook_size=size, iterations=1), None)[3]
        assert isinstance(matrix, VectorRows) and matrix.codes_RN.dtype == dtype
