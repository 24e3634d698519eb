"""Shift registers run through all of their states, and matrices are those of a register run bit by bit."""

import pytest
import torch

from phases.compression.lfsr import TAPS, advance, cycle, matrices, values


def run_by_hand(state: int, register: int, steps: int) -> list[int]:
    """The states of a register of single bits, `state` first."""
    bits = [state >> k & 1 for k in range(register)]
    states = []
    for _ in range(steps):
        states.append(sum(bit << k for k, bit in enumerate(bits)))
        entering = sum(bits[tap] for tap in TAPS[register]) % 2
        bits = [*bits[1:], entering]
    return states


@pytest.mark.parametrize("register", range(4, 17))
def test_every_register_has_the_full_period(register: int) -> None:
    states = cycle(register)
    assert torch.equal(states.sort().values, torch.arange(1, 2**register))
    assert torch.equal(advance(states, register), states.roll(-1))  # the last one is followed by the first


@pytest.mark.parametrize("register", range(4, 17))
def test_states_are_those_of_single_bits(register: int) -> None:
    count = min(2**register - 1, 100)
    assert cycle(register)[:count].tolist() == run_by_hand(1, register, count)


@pytest.mark.parametrize("register", [4, 7, 16])
def test_values_are_evenly_spread_over_minus_one_to_one(register: int) -> None:
    found = values(torch.arange(1, 2**register), register)
    assert found.dtype == torch.float32 and found[0] == -1 and found[-1] == 1
    assert found[2 ** (register - 1) - 1] == 0
    torch.testing.assert_close(found, -found.flip(0), rtol=0, atol=0)
    torch.testing.assert_close(found, torch.linspace(-1, 1, 2**register - 1))


@pytest.mark.parametrize(("register", "block", "latent"), [(4, 6, 3), (9, 8, 3), (16, 12, 4)])
def test_a_matrix_is_the_run_of_its_seed_row_by_row(register: int, block: int, latent: int) -> None:
    found = matrices(register, block, latent)
    assert found.shape == (2**register, block, latent) and not found[0].any()
    half = 2 ** (register - 1)
    for seed in (1, 2, half - 1, half, 2**register - 1):
        run = run_by_hand(seed, register, block * latent)
        expected = [[(run[c * latent + p] - half) / (half - 1) for p in range(latent)] for c in range(block)]
        torch.testing.assert_close(found[seed], torch.tensor(expected), rtol=1e-7, atol=1e-9)


def test_matrices_are_made_once() -> None:
    assert matrices(5, 4, 2) is matrices(5, 4, 2)


@pytest.mark.parametrize("register", [0, 3, 17])
def test_widths_without_taps_are_refused(register: int) -> None:
    for call in (cycle, lambda width: matrices(width, 8, 3)):
        with pytest.raises(ValueError, match=f"a register of {register} bits: 4 to 16 are offered"):
            call(register)
