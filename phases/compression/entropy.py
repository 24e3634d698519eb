"""Symbols at their entropy: a static rANS coder (arXiv 1311.2540) of many interleaved lanes, order 0.

    stream = encode_symbols(codes + 1, 3)                       # ternary codes, indices, quantised scales
    codes = decode_symbols(stream, codes.numel(), 3) - 1

A lane is a number x that takes up symbols of frequency f out of M = 2^n, which begin at c among the M:

    x ← ⌊x / f⌋ · M + c + x mod f,      back: x ← f · ⌊x / M⌋ + x mod M − c

x stays in 2^16 … 2^32 − 1: before it would leave, its low 16 bits go to the stream. Symbol k belongs to lane k mod
lanes, so that one numpy operation serves a symbol of every lane. The lanes share one sequence of 16-bit words, as the
decoder knows which of them wait for one. A lane costs 4 bytes at the end; there is one for 512 bytes or 16,384 symbols.

The stream: CRC-32 of all the rest, the count and the alphabet (4 bytes); lanes (2); the frequencies; the lanes' ends
(4 each); the words (2 each). Frequencies are Elias' gamma code: the length of each in unary, 0 for symbols that do not
occur, then the digits of each. n is 12, and up to 15 for alphabets over 512, where many a symbol would be rounded up to
1/4096. The order of symbols is not used: what has other frequencies (a group, a layer) may have a stream of its own,
which costs some 18 bytes for ternary codes.

Shapes: N symbols, S the alphabet, L lanes, M = 2^n slots.
"""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from phases.compression.lanes import LOWEST, Integers, read, write

PRECISION, HEADROOM = 12, 3
"""Bits of a frequency: at least, and beyond those of the alphabet."""
LARGEST_ALPHABET = 4096
LANE_BYTES, LANE_SYMBOLS, MOST_LANES = 512, 16384, 4096
"""Content of a lane: whichever is reached first, as symbols of next to no content take time too. More lanes than the
most are no faster."""
DIGITS = 15
"""Of a frequency below the highest, at most."""


def entropy_bits(symbols: torch.Tensor, size: int) -> float:
    """Σ −log₂ p over all symbols, p their own frequencies: no order-0 code of them is shorter."""
    counts = np.bincount(_checked(symbols, size), minlength=size)
    return _cost(counts, counts, max(1, int(counts.sum())))


def encode_symbols(symbols: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 stream of integers 0 … `size` − 1 of any shape, in row-major order.

    Raises `ValueError` for other numbers, and for alphabets of more than 4,096.
    """
    symbol_N = _checked(symbols, size)
    if not len(symbol_N):
        return _sealed(b"", 0, size)
    n = _precision(size)
    counts = np.bincount(symbol_N, minlength=size)
    wide_S = frequencies(counts, n)
    content = _cost(counts, wide_S, 1 << n) / 8
    wanted = max(1, int(content / LANE_BYTES), len(symbol_N) // LANE_SYMBOLS)
    lanes = min(wanted, MOST_LANES, len(symbol_N))
    x_L, words = write(symbol_N, wide_S, n, lanes)
    parts = np.array([lanes], "<u2"), _table(wide_S), x_L.astype("<u4"), words.astype("<u2")
    return _sealed(b"".join(part.tobytes() for part in parts), len(symbol_N), size)


def decode_symbols(
    stream: torch.Tensor, count: int, size: int, dtype: type[np.signedinteger[Any]] = np.int64
) -> torch.Tensor:
    """(`count`,) integers of `dtype`, which has to hold `size` − 1.

    A narrow one is for large tensors: symbols of 8 bytes are twice the weights that they stand for in float32.
    Raises `ValueError` for a stream that is damaged, or of another count or alphabet.
    """
    assert size - 1 <= np.iinfo(dtype).max
    body, n = _opened(stream, count, size), _precision(size)
    if not count:
        return torch.from_numpy(np.zeros(0, dtype))
    f_S, used = _read_table(body[2:], size)
    lanes, begin = int(body[:2].view("<u2")[0]), 2 + used
    words = body[begin + 4 * lanes :]
    if not 1 <= lanes <= count or f_S.sum() != 1 << n or len(body) < begin + 4 * lanes or len(words) % 2:
        raise ValueError(f"{lanes} lanes and frequencies of {f_S.sum()} do not fit a stream of {len(body)} bytes")
    x_L = np.frombuffer(body[begin : begin + 4 * lanes].tobytes(), "<u4").astype(np.uint32)
    word_W = np.frombuffer(words.tobytes(), "<u2").astype(np.uint32)
    symbol_M = np.repeat(np.arange(size, dtype=dtype), f_S)
    within_M = np.arange(1 << n, dtype=np.uint32) - (np.cumsum(f_S) - f_S).astype(np.uint32)[symbol_M]
    found_N, x_L, used_words = read(count, x_L, word_W, (symbol_M, f_S.astype(np.uint32)[symbol_M], within_M), n)
    if used_words != len(word_W) or (x_L != LOWEST).any():
        raise ValueError("the stream does not end with its symbols")
    return torch.from_numpy(found_N)


def frequencies(counts_S: Integers, precision: int) -> Integers:
    """(S,) whole numbers of sum 2^`precision`, near proportional to the counts, ≥ 1 where these are.

    What shares would be under 1 is 1; the rest is in proportion, rounded down; what is left goes where it saves most.
    """
    total, present_S = 1 << precision, counts_S > 0
    raised_S = np.zeros_like(present_S)
    while True:
        shared_S = present_S & ~raised_S
        share_S = counts_S * ((total - int(raised_S.sum())) / max(1, int(counts_S[shared_S].sum())))
        low_S = shared_S & (share_S < 1)
        if not low_S.any():
            break
        raised_S |= low_S
    found_S: Integers = np.where(shared_S, np.floor(share_S), raised_S).astype(np.int64)
    gain_S = np.where(present_S, counts_S * np.log1p(1 / np.maximum(found_S, 1)), -1)
    found_S[np.argsort(-gain_S, kind="stable")[: total - int(found_S.sum())]] += 1
    return found_S


def _precision(size: int) -> int:
    return max(PRECISION, (size - 1).bit_length() + HEADROOM)


def _cost(counts_S: Integers, f_S: Integers, total: int) -> float:
    """Bits of symbols that occur so often under these frequencies out of `total`."""
    present_S = counts_S > 0
    return float((counts_S[present_S] * np.log2(total / f_S[present_S])).sum())


def _checked(symbols: torch.Tensor, size: int) -> Integers:
    if not 1 <= size <= LARGEST_ALPHABET:
        raise ValueError(f"an alphabet of {size:,}: 1 to {LARGEST_ALPHABET:,} symbols are offered")
    if symbols.is_floating_point() or symbols.is_complex() or symbols.dtype == torch.bool:
        raise ValueError(f"symbols of {symbols.dtype}: integers are needed")
    flat_N: Integers = symbols.detach().flatten().cpu().long().numpy()
    if len(flat_N) and not 0 <= flat_N.min() <= flat_N.max() < size:
        raise ValueError(f"symbols from {flat_N.min()} to {flat_N.max()}: they lie between 0 and {size - 1}")
    return flat_N


def _table(f_S: Integers) -> npt.NDArray[np.uint8]:
    """Frequencies as whole bytes: the lengths in unary, then the digits below the highest."""
    length_S = (f_S[:, None] >> np.arange(DIGITS + 1) > 0).sum(1)
    ends_S = np.cumsum(length_S + 1) - 1
    unary = np.zeros(ends_S[-1] + 1, np.uint8)
    unary[ends_S] = 1
    digits_SD = f_S[:, None] >> np.arange(DIGITS) & 1
    below = digits_SD[np.arange(DIGITS) < length_S[:, None] - 1]
    return np.packbits(np.concatenate((unary, below.astype(np.uint8))), bitorder="little")


def _read_table(body: npt.NDArray[np.uint8], size: int) -> tuple[Integers, int]:
    """Frequencies, and the bytes that they take. Raises `ValueError` for what `_table` does not write."""
    digits = np.unpackbits(body[: size * (DIGITS + 1) // 4 + 1], bitorder="little")
    ends_S = np.flatnonzero(digits)[:size]
    length_S = np.diff(ends_S, prepend=-1) - 1
    below_SD = np.arange(DIGITS) < length_S[:, None] - 1
    used = int(ends_S[-1]) + 1 if len(ends_S) else 0
    if len(ends_S) < size or length_S.max() > DIGITS + 1 or len(digits) < used + below_SD.sum():
        raise ValueError("the stream has no whole table of frequencies")
    digits_SD = np.zeros((size, DIGITS), np.int64)
    digits_SD[below_SD] = digits[used : used + below_SD.sum()]
    f_S = digits_SD @ (1 << np.arange(DIGITS)) + np.where(length_S > 0, 1 << np.maximum(length_S - 1, 0), 0)
    return f_S, -(-(used + int(below_SD.sum())) // 8)


def _sealed(body: bytes, count: int, size: int) -> torch.Tensor:
    """The stream of a body, its checksum in front."""
    whole = np.array([_checksum(body, count, size)], "<u4").tobytes() + body
    return torch.from_numpy(np.frombuffer(whole, np.uint8).copy())


def _opened(stream: torch.Tensor, count: int, size: int) -> npt.NDArray[np.uint8]:
    """The body of a stream whose checksum is right."""
    if not 1 <= size <= LARGEST_ALPHABET or count < 0:
        raise ValueError(f"{count} symbols of an alphabet of {size}")
    if stream.dtype != torch.uint8 or stream.ndim != 1 or len(stream) < 4:
        raise ValueError(f"{stream.dtype} {tuple(stream.shape)}: a stream is a row of at least 4 uint8")
    whole: npt.NDArray[np.uint8] = stream.detach().cpu().contiguous().numpy()
    if int(whole[:4].view("<u4")[0]) != _checksum(whole[4:].tobytes(), count, size):
        raise ValueError(f"the stream is damaged, or not of {count:,} symbols of an alphabet of {size:,}")
    if bool(count) != (len(whole) > 6):
        raise ValueError(f"a stream of {len(whole)} bytes for {count:,} symbols")
    return whole[4:]


def _checksum(body: bytes, count: int, size: int) -> int:
    return zlib.crc32(body, zlib.crc32(b"%d of %d" % (count, size)))
