"""The entropy coder against a decoder of plain integers, its size against the entropy, and refusal of damage."""

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phases.compression.entropy import LARGEST_ALPHABET, decode_symbols, encode_symbols, entropy_bits, frequencies

SIZES = st.one_of(st.integers(1, 20), st.sampled_from([255, 256, 257, 512, 513, 4095, 4096]))
CASES = SIZES.flatmap(
    lambda size: st.tuples(
        st.just(size), arrays("int64", st.integers(0, 300), elements=st.integers(0, size - 1), fill=st.just(0))
    )
)
NORMAL = {"ternary": (1.0, 1), "rare": (0.25, 1), "16": (3.0, 8), "64": (10.0, 32), "256": (40.0, 128)}


def drawn(kind: str, count: int, seed: int = 0) -> tuple[torch.Tensor, int]:
    """Rounded Gaussian numbers, and their alphabet."""
    spread, half = NORMAL[kind]
    numbers = np.random.default_rng(seed).normal(0, spread, count).round()
    size = 3 if half == 1 else 2 * half
    return torch.from_numpy(numbers.clip(-half, size - 1 - half).astype(np.int64) + half), size


def by_hand_decode(stream: bytes, count: int, size: int) -> list[int]:
    """One bit, one lane and one symbol at a time."""
    assert zlib.crc32(b"%d of %d" % (count, size) + stream[4:]) == int.from_bytes(stream[:4], "little")
    bits = [byte >> k & 1 for byte in stream[6:] for k in range(8)]
    lengths: list[int] = []
    at, frequency = 0, []
    for _ in range(size):
        length = 0
        while not bits[at]:
            length, at = length + 1, at + 1
        lengths.append(length)
        at += 1
    for length in lengths:
        value = 1 << length - 1 if length else 0
        for k in range(length - 1):
            value, at = value + (bits[at] << k), at + 1
        frequency.append(value)
    whole, begin = sum(frequency), 6 + (at + 7) // 8
    lanes = int.from_bytes(stream[4:6], "little")
    ends = [int.from_bytes(stream[begin + 4 * k : begin + 4 * k + 4], "little") for k in range(lanes)]
    words, found = stream[begin + 4 * lanes :], []
    for k in range(count):
        x, symbol = ends[k % lanes], 0
        below = x % whole
        while below >= frequency[symbol]:
            below, symbol = below - frequency[symbol], symbol + 1
        x = frequency[symbol] * (x // whole) + below
        if x < 2**16:
            x, words = x * 2**16 + int.from_bytes(words[:2], "little"), words[2:]
        ends[k % lanes] = x
        found.append(symbol)
    assert not words and set(ends) == {2**16}
    return found


@settings(max_examples=60)
@given(case=CASES)
def test_any_symbols_come_back(case: Any) -> None:
    size, numbers = case
    symbols = torch.from_numpy(numbers)
    stream = encode_symbols(symbols, size)
    assert stream.dtype == torch.uint8 and stream.ndim == 1
    assert torch.equal(decode_symbols(stream, len(symbols), size), symbols)


@settings(max_examples=20)
@given(case=CASES)
def test_a_decoder_of_plain_integers_reads_the_stream(case: Any) -> None:
    size, numbers = case
    if len(numbers):
        stream = encode_symbols(torch.from_numpy(numbers), size)
        assert by_hand_decode(bytes(stream.tolist()), len(numbers), size) == numbers.tolist()


@pytest.mark.parametrize("kind", ["16", "256"])
def test_a_decoder_of_plain_integers_reads_several_lanes(kind: str) -> None:
    symbols, size = drawn(kind, 4001)
    stream = encode_symbols(symbols, size)
    assert int(stream[4]) > 2
    assert by_hand_decode(bytes(stream.tolist()), len(symbols), size) == symbols.tolist()


@pytest.mark.parametrize("kind", NORMAL)
def test_the_size_is_the_entropy(kind: str) -> None:
    symbols, size = drawn(kind, 50_000)
    stream = encode_symbols(symbols, size)
    least = entropy_bits(symbols, size) / 8
    assert least - 4 < len(stream) < 1.02 * least + 16
    assert torch.equal(decode_symbols(stream, len(symbols), size), symbols)


def test_the_entropy_equals_a_sum() -> None:
    assert entropy_bits(torch.tensor([0, 2, 2, 2, 5, 5, 2, 2]), 6) == pytest.approx(3 + 5 * np.log2(8 / 5) + 4)
    assert entropy_bits(torch.zeros(9, dtype=torch.int8), 3) == 0
    assert entropy_bits(torch.zeros(0, dtype=torch.int64), 3) == 0


def test_a_stream_of_ternary_codes_costs_18_bytes_beside_their_entropy() -> None:
    symbols, size = drawn("ternary", 5000)
    assert len(encode_symbols(symbols, size)) < entropy_bits(symbols, size) / 8 * 1.01 + 18


@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 4096), (1000, 3), (1000, 4096), (33_000, 3)])
def test_one_distinct_symbol_takes_no_content(count: int, size: int) -> None:
    symbols = torch.full((count,), size - 1)
    stream = encode_symbols(symbols, size)
    assert len(stream) <= 4 + 2 - (-(size + 31) // 8) + 4 * max(1, count // 16384)
    assert torch.equal(decode_symbols(stream, count, size), symbols)


def test_no_symbols_are_a_checksum() -> None:
    stream = encode_symbols(torch.zeros(0, 5, dtype=torch.int64), 7)
    assert len(stream) == 4 and decode_symbols(stream, 0, 7).shape == (0,)
    for count, size in ((1, 7), (0, 8)):
        with pytest.raises(ValueError, match="damaged"):
            decode_symbols(stream, count, size)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int64])
def test_any_integers_and_shapes_give_the_same_bytes(dtype: torch.dtype) -> None:
    symbols, size = drawn("16", 600)
    expected = encode_symbols(symbols, size)
    assert torch.equal(encode_symbols(symbols.to(dtype).view(3, 10, 20), size), expected)


@pytest.mark.parametrize("kind", ["ternary", "64"])
def test_every_damaged_byte_is_refused(kind: str) -> None:
    symbols, size = drawn(kind, 300)
    stream = encode_symbols(symbols, size)
    for at in range(len(stream)):
        for change in (1, 0x80, 0xFF):
            damaged = stream.clone()
            damaged[at] ^= change
            with pytest.raises(ValueError, match="damaged"):
                decode_symbols(damaged, 300, size)


def test_a_stream_of_another_length_count_or_alphabet_is_refused() -> None:
    symbols, size = drawn("16", 300)
    stream = encode_symbols(symbols, size)
    for cut in range(len(stream)):
        with pytest.raises(ValueError, match=r"damaged|at least 4"):
            decode_symbols(stream[:cut], 300, size)
    for other, count, alphabet in ((torch.cat((stream, stream[:1])), 300, 16), (stream, 299, 16), (stream, 300, 17)):
        with pytest.raises(ValueError, match="damaged"):
            decode_symbols(other, count, alphabet)
    with pytest.raises(ValueError, match="uint8"):
        decode_symbols(stream.int(), 300, size)
    with pytest.raises(ValueError, match="alphabet"):
        decode_symbols(stream, -1, size)


@settings(max_examples=100)
@given(body=st.binary(max_size=40), count=st.integers(0, 40), size=st.sampled_from([1, 2, 3, 16]))
def test_what_a_right_checksum_stands_before_is_refused_or_decoded(body: bytes, count: int, size: int) -> None:
    """A forger gets a `ValueError` or symbols of the alphabet, and nothing else."""
    whole = zlib.crc32(b"%d of %d" % (count, size) + body).to_bytes(4, "little") + body
    try:
        found = decode_symbols(torch.tensor(list(whole), dtype=torch.uint8), count, size)
    except ValueError:
        return
    assert found.shape == (count,) and bool(((found >= 0) & (found < size)).all())


def test_a_forged_end_is_refused() -> None:
    symbols, size = drawn("16", 300)
    body = bytes(encode_symbols(symbols, size).tolist())[4:]
    for changed in (body[:-2], body + b"\0\0", body + b"\0", body[:-1] + bytes([body[-1] ^ 1])):
        whole = zlib.crc32(b"300 of 16" + changed).to_bytes(4, "little") + changed
        with pytest.raises(ValueError, match=r"ends before|not end with|do not fit"):
            decode_symbols(torch.tensor(list(whole), dtype=torch.uint8), 300, size)


@pytest.mark.parametrize(
    ("symbols", "size"),
    [
        (torch.tensor([0, 3]), 3),
        (torch.tensor([-1, 0]), 3),
        (torch.tensor([0.0]), 3),
        (torch.tensor([True]), 3),
        (torch.tensor([0]), 0),
        (torch.tensor([0]), LARGEST_ALPHABET + 1),
    ],
)
def test_no_symbols_of_the_alphabet_are_refused(symbols: torch.Tensor, size: int) -> None:
    with pytest.raises(ValueError, match=r"symbols"):
        encode_symbols(symbols, size)


@given(counts=st.lists(st.integers(0, 10**6), min_size=1, max_size=40).filter(any), precision=st.integers(12, 15))
def test_frequencies_are_whole_and_near_the_counts(counts: list[int], precision: int) -> None:
    found = frequencies(np.array(counts), precision).tolist()
    assert sum(found) == 2**precision
    # Those raised to 1 take no more than one each from the others, and rounding moves less than one.
    raised = sum(0 < c * 2**precision < sum(counts) for c in counts)
    for f, c in zip(found, counts, strict=True):
        share = c / sum(counts) * 2**precision
        assert (f > 0) == (c > 0)
        assert share * (1 - raised / 2**precision) - 1 <= f <= max(1, share + 1)


def test_frequencies_are_the_best_there_are() -> None:
    """Against every table of three frequencies of sum 64."""
    counts = np.array([1, 700, 123])
    found = frequencies(counts, 6)
    tables = [(a, b, 64 - a - b) for a in range(1, 63) for b in range(1, 64 - a)]
    least = min(-float((counts * np.log2(np.array(table) / 64)).sum()) for table in tables)
    assert -float((counts * np.log2(found / 64)).sum()) == pytest.approx(least)


@pytest.mark.parametrize(("count", "size"), [(700, 3), (5000, 300), (1, 5), (64, 1)])
def test_lanes_one_by_one_and_side_by_side_write_the_same_and_read_it(
    count: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbols = torch.randint(size, (count,))
    found = []
    for wide in (1, 10**6):
        monkeypatch.setattr("phases.compression.lanes.WIDE", wide)
        found.append(encode_symbols(symbols, size))
    assert torch.equal(*found)
    for wide in (1, 10**6):
        monkeypatch.setattr("phases.compression.lanes.WIDE", wide)
        assert torch.equal(decode_symbols(found[0], count, size), symbols)
