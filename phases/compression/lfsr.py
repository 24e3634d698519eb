"""Pseudo-random matrices from linear-feedback shift registers, as SeedLM (arXiv 2410.10714) uses them.

A Fibonacci register of K bits moves down by one bit; the bit that enters on top is the parity of the tapped ones. Taps
t₀ = 0, t₁, … stand for the polynomial x^K + x^t₁ + … + 1. Where it is primitive, the register runs through all of
1 … 2^K − 1 before it repeats; the tests count this for every K. The matrix of a seed is its own state and the ones
that follow, row by row, mapped to [−1, 1]:

    U(seed)[c, p] = (state_{c·P + p} − 2^(K−1)) / (2^(K−1) − 1),    state₀ = seed

Filled column by column instead, the same register is a quarter worse (relative MSE .019 for .015 at K 16, C 8, P 3).

Shapes: S = 2^K seeds with the unused seed 0 in front, C weights a block, P columns.
"""

from functools import lru_cache

import torch

TAPS = {
    4: (0, 1),
    5: (0, 2),
    6: (0, 1),
    7: (0, 1),
    8: (0, 1, 2, 7),
    9: (0, 4),
    10: (0, 3),
    11: (0, 2),
    12: (0, 1, 2, 8),
    13: (0, 1, 2, 5),
    14: (0, 1, 2, 12),
    15: (0, 1),
    16: (0, 1, 3, 12),
}
"""Primitive polynomials: the tapped bits of every register width K."""


def advance(state: torch.Tensor, register: int) -> torch.Tensor:
    """The next states of registers of `register` bits; int64 of any shape."""
    entering = torch.zeros_like(state)
    for tap in TAPS[register]:
        entering ^= state >> tap
    return state >> 1 | (entering & 1) << (register - 1)


def cycle(register: int) -> torch.Tensor:
    """(2^K − 1,) int64: the states from 1 on, each followed by its next one. Raises `ValueError` without taps.

    Doubled K times with a table of all states `jump` steps ahead, so that nothing runs state by state.
    """
    check_register(register)
    ahead = advance(torch.arange(2**register, device="cpu"), register)
    states = torch.ones(1, dtype=torch.int64, device="cpu")
    for _ in range(register):
        states = torch.cat((states, ahead[states]))
        ahead = ahead[ahead]
    return states[:-1]


def values(state: torch.Tensor, register: int) -> torch.Tensor:
    """float32 in [−1, 1] of states 1 … 2^K − 1, evenly spread."""
    half = 2 ** (register - 1)
    found: torch.Tensor = (state - half).float() / (half - 1)
    return found


@lru_cache(maxsize=8)
def matrices(register: int, block: int, latent: int) -> torch.Tensor:
    """(S, C, P) float32: U(seed) of every seed. Seed 0, at which a register stands still, has zeros.

    Shared between callers: not to be written to. 2^K · C · P · 4 bytes, 6 MiB at K 16, C 8, P 3.
    """
    check_register(register)
    state = torch.arange(2**register, device="cpu")
    found = torch.empty(2**register, block * latent, device="cpu")
    for k in range(block * latent):
        found[:, k] = values(state, register)
        state = advance(state, register)
    found[0] = 0
    return found.view(-1, block, latent)


def check_register(register: int) -> None:
    """Raise `ValueError` for a width K that has no taps here."""
    if register not in TAPS:
        raise ValueError(f"a register of {register} bits: {min(TAPS)} to {max(TAPS)} are offered")
