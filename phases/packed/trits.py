"""Codes of a few levels as bytes: 5 trits a byte (1.6 bits a weight), 4 at 2 bits, 2 at 4 bits. Exact both ways.

    trits   a byte is Σ (code_k + 1) · 3ᵏ for k = 0 … 4, so 0 … 242; decoded by a table of 256 × 5 int8
    2bit    a byte is Σ (code_k + 1) · 4ᵏ for k = 0 … 3; the digit 3 is no code
    4bit    a byte is (code_0 + 8) + 16 · (code_1 + 8); the digit 0 (code −8) is no code

Trits and 2 bits run through a tensor in row-major order with no regard to rows, so that only its last byte is padded:
kernels lay the codes out anew for their own needs, and a row padded to whole bytes would cost bits that the format's
name denies. The 4-bit codes of embeddings are padded row by row instead, as single rows are looked up. Padding is the
digit of code 0. `check_*` looks at every byte and raises `ValueError`; `decode_*` trusts bytes that were
checked; `unpack_*` does both.
"""

from functools import cache

import torch

TRITS, QUARTERS = 5, 4
"""Ternary codes a byte."""
LARGEST = 3**TRITS - 1
_POWERS = tuple(3**k for k in range(TRITS))
_SHIFTS = tuple(2 * k for k in range(QUARTERS))


def bytes_trits(count: int) -> int:
    """Bytes of `count` ternary codes at 5 a byte."""
    return -(-count // TRITS)


def bytes_2bit(count: int) -> int:
    """Bytes of `count` ternary codes at 2 bits."""
    return -(-count // QUARTERS)


def pack_trits(codes: torch.Tensor) -> torch.Tensor:
    """(⌈N/5⌉,) uint8 of N codes −1, 0, 1 of any shape."""
    digits = _digits(codes, TRITS)
    return (digits * torch.tensor(_POWERS, dtype=torch.uint8, device=codes.device)).sum(-1, dtype=torch.uint8)


def check_trits(packed: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` for a wrong count, a byte over 242, and digits behind the end of `shape`."""
    _check_count(packed, bytes_trits(_count(shape)), shape)
    if packed.numel() and int(packed.max()) > LARGEST:
        raise ValueError(f"{int((packed > LARGEST).sum()):,} bytes are over {LARGEST}: no five trits")
    _check_padding(decode_trits(packed[-1:], (-1,)), shape)


def decode_trits(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """int8 codes of `shape` from bytes that `check_trits` has once accepted; (−1,): of all digits."""
    return _first(_trit_table(packed.device).index_select(0, packed.int()).flatten(), shape)


def unpack_trits(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """int8 codes of `shape`. Raises `ValueError` for bytes that no codes are packed to."""
    check_trits(packed, shape)
    return decode_trits(packed, shape)


def pack_2bit(codes: torch.Tensor) -> torch.Tensor:
    """(⌈N/4⌉,) uint8 of N codes −1, 0, 1 of any shape, 2 bits each."""
    digits = _digits(codes, QUARTERS)
    return (digits << torch.tensor(_SHIFTS, dtype=torch.uint8, device=codes.device)).sum(-1, dtype=torch.uint8)


def check_2bit(packed: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` for a wrong count, a digit 3, and digits behind the end of `shape`."""
    _check_count(packed, bytes_2bit(_count(shape)), shape)
    bad = int((packed & (packed >> 1) & 0b01010101).count_nonzero())
    if bad:
        raise ValueError(f"{bad:,} bytes have the digit 3: no ternary code")
    _check_padding(decode_2bit(packed[-1:], (-1,)), shape)


def decode_2bit(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """int8 codes of `shape` from bytes that `check_2bit` has once accepted; (−1,): of all digits."""
    digits = torch.stack([packed >> shift & 3 for shift in _SHIFTS], -1).flatten()
    return _first(digits.to(torch.int8) - 1, shape)


def unpack_2bit(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """int8 codes of `shape`. Raises `ValueError` for bytes that no codes are packed to."""
    check_2bit(packed, shape)
    return decode_2bit(packed, shape)


def pack_4bit(codes_RI: torch.Tensor) -> torch.Tensor:
    """(R, ⌈I/2⌉) uint8 of codes −7 … 7, 4 bits each, every row padded to whole bytes."""
    _check_range(codes_RI, 7)
    digits = torch.nn.functional.pad(codes_RI, (0, codes_RI.shape[1] % 2)).to(torch.uint8) + 8 & 0xF
    return digits[:, ::2] | digits[:, 1::2] << 4


def check_4bit(packed_RB: torch.Tensor, width: int) -> None:
    """Raise `ValueError` for a wrong count of bytes a row, a digit 0, and digits behind the end of rows of `width`."""
    _check_dtype(packed_RB, torch.uint8)
    if packed_RB.ndim != 2 or packed_RB.shape[1] != -(-width // 2):
        raise ValueError(f"{tuple(packed_RB.shape)} bytes: {-(-width // 2)} a row expected for {width} codes")
    bad = int(((packed_RB & 0xF == 0) | (packed_RB >> 4 == 0)).count_nonzero())
    if bad:
        raise ValueError(f"{bad:,} bytes have the digit 0: no 4-bit code")
    if width % 2 and bool((packed_RB[:, -1] >> 4 != 8).any()):
        raise ValueError("codes stand behind the end of a row")


def decode_4bit(packed_RB: torch.Tensor, width: int) -> torch.Tensor:
    """(R, `width`) int8 from bytes that `check_4bit` has once accepted."""
    digits = torch.stack((packed_RB & 0xF, packed_RB >> 4), -1).flatten(1)[:, :width]
    return digits.to(torch.int8) - 8


def unpack_4bit(packed_RB: torch.Tensor, width: int) -> torch.Tensor:
    """(R, `width`) int8. Raises `ValueError` for bytes that no codes are packed to."""
    check_4bit(packed_RB, width)
    return decode_4bit(packed_RB, width)


def check_8bit(codes_RI: torch.Tensor) -> None:
    """Raise `ValueError` for −128, which a symmetric lattice has not."""
    _check_dtype(codes_RI, torch.int8)
    _check_range(codes_RI, 127)


def _count(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _digits(codes: torch.Tensor, per_byte: int) -> torch.Tensor:
    """(bytes, per_byte) uint8, as wider ones are larger than the weights: the codes + 1, code 0 behind the end."""
    _check_range(codes, 1)
    flat = codes.flatten().to(torch.int8)
    return (torch.nn.functional.pad(flat, (0, -len(flat) % per_byte)).view(-1, per_byte) + 1).to(torch.uint8)


def _check_range(codes: torch.Tensor, largest: int) -> None:
    # Both ends, not the magnitude: |−128| is −128 in int8.
    if codes.numel() and not -largest <= int(codes.min()) <= int(codes.max()) <= largest:
        raise ValueError(
            f"codes from {int(codes.min())} to {int(codes.max())}: they lie between -{largest} and {largest}"
        )


def _check_dtype(packed: torch.Tensor, dtype: torch.dtype) -> None:
    if packed.dtype != dtype:
        raise ValueError(f"{packed.dtype} instead of {dtype}")


def _check_count(packed: torch.Tensor, expected: int, shape: tuple[int, ...]) -> None:
    _check_dtype(packed, torch.uint8)
    if packed.shape != (expected,):
        raise ValueError(f"{tuple(packed.shape)} bytes: ({expected},) expected for codes of shape {tuple(shape)}")


def _check_padding(last_codes: torch.Tensor, shape: tuple[int, ...]) -> None:
    padding = -_count(shape) % len(last_codes) if len(last_codes) else 0
    if padding and last_codes[-padding:].any():
        raise ValueError("codes stand behind the end of the tensor")


def _first(codes_N: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return codes_N if shape == (-1,) else codes_N[: _count(shape)].view(shape)


@cache
def _trit_table(device: torch.device) -> torch.Tensor:
    """(256, 5) int8: the codes of every byte; zeros for those over 242."""
    # The device is named, as a default one may be in force: transformers builds models under `meta`.
    value = torch.arange(256, device=device)[:, None]
    codes = value // torch.tensor(_POWERS, device=device) % 3 - 1
    return torch.where(value > LARGEST, 0, codes).to(torch.int8)
