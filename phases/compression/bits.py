"""Numbers of a few bits each, one after the other with no regard to bytes, low bits first.

packed = pack(codes, 12)                  # uint8
unpack(packed, len(codes), 12, "codes")
"""

import numpy as np
import torch

WIDEST = 32
"""Bits of a number at most."""


def bits_for(size: int) -> int:
    """⌈log₂ size⌉: of numbers under `size`."""
    return (size - 1).bit_length()


def pack(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """(⌈N · bits / 8⌉,) uint8 of N whole numbers from 0 to 2^bits − 1; zeros behind the last."""
    little = numbers.reshape(-1).numpy(force=True).astype("<u4").view(np.uint8).reshape(-1, WIDEST // 8)
    digits = np.unpackbits(little, axis=1, bitorder="little", count=bits)
    return torch.from_numpy(np.packbits(digits.reshape(-1), bitorder="little"))


def unpack(packed: torch.Tensor, count: int, bits: int, name: str, under: int = 1 << WIDEST) -> torch.Tensor:
    """(`count`,) int64. Raises `ValueError`, by `name`, for what `pack` does not write of numbers `under` a limit."""
    expected = -(-count * bits // 8)
    if packed.dtype != torch.uint8 or packed.shape != (expected,):
        raise ValueError(f"{name}: {packed.dtype} {tuple(packed.shape)}, but ({expected},) bytes are expected")
    digits = np.unpackbits(packed.numpy(force=True), bitorder="little")
    if digits[count * bits :].any():
        raise ValueError(f"{name}: bits stand behind the end")
    little = np.packbits(digits[: count * bits].reshape(count, bits), axis=1, bitorder="little")
    wide = np.zeros((count, WIDEST // 8), np.uint8)
    wide[:, : little.shape[1]] = little
    numbers = torch.from_numpy(wide.view("<u4").reshape(-1).astype(np.int64))
    if count and int(numbers.max()) >= under:
        raise ValueError(f"{name}: {int(numbers.max())} is among them, under {under} is needed")
    return numbers
