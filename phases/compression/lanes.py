"""The rANS coder's lanes: symbols into numbers and words, and back (arXiv 1311.2540); `entropy` says how they lie.

    ends_L, words = write(symbol_N, frequency_S, 12, lanes=16)
    symbol_N, left_L, read_words = read(count, ends_L, words, tables, 12)

Few lanes go through Python's integers, many through numpy, a symbol of every lane at a time; the result is the same to
the bit. For 45,000 ternary codes in 15 lanes Python takes 31 and 23 ms, numpy 60 and 92; in 64 lanes they are even.

Shapes: N symbols, S the alphabet, L lanes, W words of 16 bits, M = 2^n slots.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

LOWEST = 1 << 16
"""The least x, with which a lane begins."""
WIDE = 64
"""Lanes from which numpy is faster."""
TOO_SHORT = "the stream ends before its symbols"

Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]
Symbols = npt.NDArray[np.signedinteger[Any]]
"""Of the width that the reader asks for."""
Tables = tuple[Symbols, Words, Words]
"""By slot: the symbol, its frequency, and the slot's place among its slots."""


def write(symbol_N: Integers, wide_S: Integers, n: int, lanes: int) -> tuple[Words, Words]:
    """(L,) where the lanes end, and (W,) the words, from N symbols of these frequencies of sum 2^n."""
    one_way = _write_one_by_one if lanes < WIDE else _write_side_by_side
    return one_way(symbol_N, wide_S, n, lanes)


def read(count: int, x_L: Words, word_W: Words, table: Tables, n: int) -> tuple[Symbols, Words, int]:
    """(`count`,) symbols of the table's dtype, what the lanes are left with, and how many words were read.

    Raises `ValueError` where words are missing.
    """
    one_way = _read_one_by_one if len(x_L) < WIDE else _read_side_by_side
    return one_way(count, x_L, word_W, table, n)


def _write_side_by_side(symbol_N: Integers, wide_S: Integers, n: int, lanes: int) -> tuple[Words, Words]:
    f_S, start_S = wide_S.astype(np.uint32), (np.cumsum(wide_S) - wide_S).astype(np.uint32)
    rest_S = (1 << n) - f_S
    # The ceiling 2^32 of a symbol that is certain is over uint32, but no x ever moves then.
    ceiling_S = np.minimum(wide_S << (32 - n), 2**32 - 1).astype(np.uint32)
    x_L, words = np.full(lanes, LOWEST, np.uint32), []
    for first in reversed(range(0, len(symbol_N), lanes)):
        symbol_L = symbol_N[first : first + lanes]
        x = x_L[: len(symbol_L)]
        full_L = x >= ceiling_S[symbol_L]
        words.append(x[full_L] & 0xFFFF)
        x[full_L] >>= 16
        x += x // f_S[symbol_L] * rest_S[symbol_L] + start_S[symbol_L]
    return x_L, np.concatenate(words[::-1])


def _write_one_by_one(symbol_N: Integers, wide_S: Integers, n: int, lanes: int) -> tuple[Words, Words]:
    f, start = wide_S.tolist(), (np.cumsum(wide_S) - wide_S).tolist()
    x, words = [LOWEST] * lanes, []
    backwards = symbol_N[::-1].tolist()
    # Within a round of lanes words stand in the lanes' order; all of it is turned around in the end.
    for k, symbol in zip(range(len(backwards) - 1, -1, -1), backwards, strict=True):
        one, share = x[k % lanes], f[symbol]
        if one >> (32 - n) >= share:
            words.append(one & 0xFFFF)
            one >>= 16
        x[k % lanes] = (one // share << n) + start[symbol] + one % share
    return np.array(x, np.uint32), np.array(words[::-1], np.uint32)


def _read_side_by_side(count: int, x_L: Words, word_W: Words, table: Tables, n: int) -> tuple[Symbols, Words, int]:
    symbol_M, f_M, within_M = table
    found_N, place, lanes = np.empty(count, symbol_M.dtype), 0, len(x_L)
    for first in range(0, count, lanes):
        x = x_L[: count - first]
        slot_L = x & ((1 << n) - 1)
        found_N[first : first + lanes] = symbol_M[slot_L]
        x >>= n
        x *= f_M[slot_L]
        x += within_M[slot_L]
        waiting_L = np.flatnonzero(x < LOWEST)
        if place + len(waiting_L) > len(word_W):
            raise ValueError(TOO_SHORT)
        x[waiting_L] = x[waiting_L] << 16 | word_W[place : place + len(waiting_L)]
        place += len(waiting_L)
    return found_N, x_L, place


def _read_one_by_one(count: int, x_L: Words, word_W: Words, table: Tables, n: int) -> tuple[Symbols, Words, int]:
    symbols, f, within = (column.tolist() for column in table)
    x, words, found, place, mask = x_L.tolist(), word_W.tolist(), [], 0, (1 << n) - 1
    for k in range(count):
        one = x[k % len(x)]
        slot = one & mask
        found.append(symbols[slot])
        one = f[slot] * (one >> n) + within[slot]
        if one < LOWEST:
            if place == len(words):
                raise ValueError(TOO_SHORT)
            one = one << 16 | words[place]
            place += 1
        x[k % len(x)] = one
    return np.array(found, table[0].dtype), np.array(x, np.uint32), place
