"""Packing is exact for any shape, group and value, and no byte that it could not have written is read."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file

from phases.bitnet.lattice import Lattice, absmax, levels, ternary
from phases.packed import trits
from phases.packed.container import read_header, verify_digest, write_file
from phases.packed.layout import CODECS, read_lattice, scale_shape

SHAPES = st.one_of(
    st.tuples(st.integers(0, 23)), st.tuples(*[st.integers(0, 7)] * 2), st.tuples(*[st.integers(1, 4)] * 3)
)
TERNARY = SHAPES.flatmap(lambda shape: arrays("int8", shape, elements=st.integers(-1, 1))).map(torch.from_numpy)
MATRIX = st.tuples(st.integers(1, 9), st.integers(1, 23))
FLOATS = st.floats(-1e5, 1e5, width=32)
WEIGHTS = MATRIX.flatmap(lambda shape: arrays("float32", shape, elements=FLOATS)).map(torch.from_numpy)
GROUPS = st.none() | st.integers(1, 30)
WAYS: dict[str, tuple[Any, Any, Any, int, int]] = {
    "trits": (trits.pack_trits, trits.unpack_trits, trits.decode_trits, 5, 3),
    "2bit": (trits.pack_2bit, trits.unpack_2bit, trits.decode_2bit, 4, 4),
}


@pytest.mark.parametrize("way", WAYS)
@given(codes=TERNARY)
def test_ternary_codes_come_back_from_the_digits_of_their_bytes(way: str, codes: torch.Tensor) -> None:
    pack, unpack, decode, per_byte, base = WAYS[way]
    packed, shape = pack(codes), tuple(codes.shape)
    flat = [int(c) + 1 for c in codes.flatten()] + [1] * (-codes.numel() % per_byte)
    numbers = [sum(d * base**k for k, d in enumerate(flat[i : i + per_byte])) for i in range(0, len(flat), per_byte)]
    assert packed.dtype == torch.uint8 and packed.tolist() == numbers
    assert torch.equal(unpack(packed, shape), codes) and torch.equal(decode(packed, shape), codes)


@given(
    codes=st.tuples(st.integers(0, 5), st.integers(0, 9)).flatmap(
        lambda s: arrays("int8", s, elements=st.integers(-7, 7))
    )
)
def test_4_bit_codes_come_back(codes: Any) -> None:
    packed = trits.pack_4bit(torch.from_numpy(codes))
    assert packed.shape == (codes.shape[0], (codes.shape[1] + 1) // 2)
    assert torch.equal(trits.unpack_4bit(packed, codes.shape[1]), torch.from_numpy(codes))


@pytest.mark.parametrize("layout", ["trits", "2bit", "8bit", "4bit"])
@given(weight=WEIGHTS, group=GROUPS)
def test_any_matrix_on_its_lattice_is_exact_through_pack_and_unpack(
    layout: Any, weight: torch.Tensor, group: int | None
) -> None:
    bits = {"8bit": 8, "4bit": 4}.get(layout)
    lattice = absmax(weight, bits, group) if bits else ternary(weight, group)
    shape, codec = (weight.shape[0], weight.shape[1]), CODECS[layout]
    found = read_lattice(lattice.dequantise(), layout, group, "w")
    packed = codec.pack(found.codes_OI)
    assert packed.dtype == codec.dtype and tuple(packed.shape) == codec.stored(shape)
    assert tuple(found.scale_OG.shape) == scale_shape(shape, group) and found.scale_OG.dtype == torch.float16
    codec.check(packed, shape)
    again = Lattice(codec.decode(packed, shape), found.scale_OG, group)
    assert torch.equal(again.codes_OI, lattice.codes_OI) and torch.equal(again.dequantise(), lattice.dequantise())


@given(byte=st.integers(0, 255))
def test_every_byte_is_five_trits_or_refused(byte: int) -> None:
    packed = torch.tensor([121, byte], dtype=torch.uint8)
    if byte <= 242:
        assert torch.equal(trits.pack_trits(trits.unpack_trits(packed, (2, 5))), packed)
        return
    with pytest.raises(ValueError, match="1 bytes are over 242"):
        trits.unpack_trits(packed, (2, 5))


@pytest.mark.parametrize("read", [trits.unpack_trits, trits.unpack_2bit])
@pytest.mark.parametrize(
    ("packed", "shape", "reason"),
    [
        (torch.full((2,), 121, dtype=torch.uint8), (3, 1), r"\(2,\) bytes: \(1,\) expected"),
        (torch.full((1,), 121, dtype=torch.uint8), (11,), "bytes: "),
        (torch.full((1, 1), 121, dtype=torch.uint8), (3,), "bytes: "),
        (torch.full((1,), 121, dtype=torch.int8), (3,), "torch.int8 instead of torch.uint8"),
        (torch.zeros(1, dtype=torch.uint8), (3,), "behind the end"),
    ],
)
def test_wrong_counts_types_and_padding_are_refused(read: Any, packed: torch.Tensor, shape: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(packed, shape)


@pytest.mark.parametrize("digits", [(3, 1, 1, 1), (1, 1, 1, 3), (0, 3, 2, 1)])
def test_the_digit_3_is_no_2_bit_code(digits: tuple[int, ...]) -> None:
    packed = torch.tensor([sum(d << 2 * k for k, d in enumerate(digits))], dtype=torch.uint8)
    with pytest.raises(ValueError, match="digit 3"):
        trits.unpack_2bit(packed, (4,))


@pytest.mark.parametrize(
    ("packed", "width", "reason"),
    [([[0x80]], 2, "digit 0"), ([[0x08]], 2, "digit 0"), ([[0x98]], 1, "behind the end"), ([[0x88]], 3, "2 a row")],
)
def test_4_bit_bytes_that_nothing_packs_to_are_refused(packed: Any, width: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        trits.unpack_4bit(torch.tensor(packed, dtype=torch.uint8), width)


@pytest.mark.parametrize("value", [-128, 2])
def test_codes_off_the_lattice_are_not_packed(value: int) -> None:
    codes = torch.tensor([[0, value, 1]], dtype=torch.int8)
    for pack in (trits.pack_trits, trits.pack_2bit, lambda c: trits.pack_4bit(c * 4 if value == 2 else c)):
        with pytest.raises(ValueError, match="they lie between"):
            pack(codes)


def test_minus_128_is_no_8_bit_code() -> None:
    with pytest.raises(ValueError, match="from -128 to 127"):
        trits.check_8bit(torch.tensor([[-128, 127]], dtype=torch.int8))
    assert levels(8) == 127


DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int64)


@given(shapes=st.lists(st.tuples(st.sampled_from(DTYPES), SHAPES), max_size=6))
def test_any_tensors_come_back_from_a_file_of_the_size_that_its_header_gives(
    shapes: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    tensors = {f"t{i}": (torch.randn(shape) * 50).to(dtype) for i, (dtype, shape) in enumerate(shapes)}
    write_file(Path(path), tensors, {"format": "pt"})
    verify_digest(path)
    header = read_header(path)
    assert header.bytes + sum(e.bytes for e in header.entries.values()) == path.stat().st_size
    found = load_file(path)
    assert found.keys() == tensors.keys() and all(torch.equal(found[n], t) for n, t in tensors.items())
