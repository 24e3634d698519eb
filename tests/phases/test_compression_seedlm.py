"""SeedLM against plain loops, its figures on Gaussian weights, and refusal of what it did not write."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.compression.codec import Codec, Encoded, relative_error
from phases.compression.lfsr import TAPS
from phases.compression.seedlm import LEAST_IMPORTANCE, SeedLM, _largest

FAST = SeedLM(register=8)


def gaussian(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def by_hand_u(codec: SeedLM, seed: int) -> list[list[float]]:
    """U of one seed, one state at a time."""
    register, half, state, flat = codec.register, 2 ** (codec.register - 1), seed, []
    for _ in range(codec.block * codec.latent):
        flat.append((state - half) / (half - 1))
        entering = sum(state >> tap & 1 for tap in TAPS[register]) % 2
        state = state // 2 + entering * half
    return [flat[c * codec.latent : (c + 1) * codec.latent] for c in range(codec.block)]


def numbers(packed: torch.Tensor, bits: int, count: int) -> list[int]:
    """Numbers of `bits` bits from one long integer."""
    whole = int.from_bytes(bytes(packed.tolist()), "little")
    return [whole >> bits * k & (2**bits - 1) for k in range(count)]


def by_hand_decode(codec: SeedLM, encoded: Encoded) -> list[list[float]]:
    rows, width = encoded.shape
    across, latent = math.ceil(width / codec.block), codec.latent
    seeds = numbers(encoded.tensors["seeds"], codec.register, rows * across)
    exponents = numbers(encoded.tensors["exponents"], 4, rows * across)
    codes = numbers(encoded.tensors["coefficients"], 4, rows * across * latent)
    scale, found = encoded.tensors["scale"].item(), []
    for o in range(rows):
        row: list[float] = []
        for b in range(o * across, (o + 1) * across):
            t = [(codes[b * latent + p] - 8) * 2.0 ** (exponents[b] - 14) * scale for p in range(latent)]
            row += [sum(u * x for u, x in zip(u_row, t, strict=True)) for u_row in by_hand_u(codec, seeds[b])]
        found.append(row[:width])
    return found


def by_hand_least(codec: SeedLM, w: list[float], h: list[float]) -> float:
    """The least error of a block over all seeds, exponents and codes."""
    best = sum(hc * x * x for hc, x in zip(h, w, strict=True))
    for seed in range(1, 2**codec.register):
        u = by_hand_u(codec, seed)
        for exponent in range(6, 16):  # smaller steps reach no more than 8 · 2⁻⁹ of the scale
            for codes in itertools.product(range(-8, 8), repeat=codec.latent):
                y = [2.0 ** (exponent - 14) * sum(q * x for q, x in zip(codes, row, strict=True)) for row in u]
                best = min(best, sum(hc * (a - b) ** 2 for hc, a, b in zip(h, w, y, strict=True)))
    return best


@pytest.mark.parametrize("codec", [SeedLM(7), SeedLM(12, 12, 4), SeedLM(5, 3, 3, None), SeedLM(16, 8, 3, 4)], ids=str)
@pytest.mark.parametrize("shape", [(3, 24), (5, 29), (1, 1)])
def test_decoding_equals_a_loop(codec: SeedLM, shape: tuple[int, int]) -> None:
    weight = gaussian(*shape) * 0.02
    encoded = codec.encode(weight)
    found = codec.decode(encoded)
    assert found.shape == shape and found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(by_hand_decode(codec, encoded)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("h", [[1.0, 1.0, 1.0, 1.0], [1.0, 0.3, 0.0, 0.02]])
def test_one_coefficient_finds_the_least_error_there_is(h: list[float]) -> None:
    """With P = 1 the three exponents tried hold the best of all, so nothing can beat the search."""
    codec, weight = SeedLM(register=5, block=4, latent=1, refined=None), gaussian(6, 4)
    weight[0, 0] = 4.0  # a scale that float16 holds exactly
    found = codec.decode(codec.encode(weight, torch.tensor(h)))
    floored = [max(x, LEAST_IMPORTANCE) for x in h]
    for w, y in zip((weight / 4).tolist(), (found / 4).tolist(), strict=True):
        error = sum(hc * (a - b) ** 2 for hc, a, b in zip(floored, w, y, strict=True))
        assert error == pytest.approx(by_hand_least(codec, w, floored), rel=1e-3, abs=1e-7)


def test_two_coefficients_come_near_the_least_error_there_is() -> None:
    codec, weight = SeedLM(register=4, block=3, latent=2, refined=None), gaussian(3, 3)
    weight[0, 0] = 4.0
    found = codec.decode(codec.encode(weight))
    least = [by_hand_least(codec, w, [1.0] * 3) for w in (weight / 4).tolist()]
    errors = ((weight - found) / 4).square().sum(1).tolist()
    assert all(error >= bound * (1 - 1e-4) for error, bound in zip(errors, least, strict=True))
    assert sum(errors) < 1.5 * sum(least)


@pytest.mark.parametrize(
    ("codec", "shape", "error"),
    [
        (SeedLM(), (32, 64), 0.0147),
        (SeedLM(block=12, latent=4), (32, 60), 0.0485),
        (SeedLM(register=12), (128, 128), 0.0334),
        (SeedLM(register=8), (256, 256), 0.0899),
    ],
    ids=str,
)
def test_gaussian_weights_have_the_measured_error(codec: SeedLM, shape: tuple[int, int], error: float) -> None:
    weight = gaussian(*shape) * 0.02
    found = relative_error(weight, codec.decode(codec.encode(weight)))
    assert found == pytest.approx(error, rel=0.06)
    assert found > 2 ** (-2 * codec.bits)  # Shannon's bound


def test_the_best_16_seeds_by_energy_are_as_good_as_all() -> None:
    weight = gaussian(64, 64)
    ranked, every = (relative_error(weight, c.decode(c.encode(weight))) for c in (FAST, replace(FAST, refined=None)))
    assert every <= ranked < 1.01 * every


@given(st.integers(1, 6), st.integers(1, 40), st.integers(4, 9), st.integers(1, 9), st.data())
@settings(max_examples=40, deadline=None)
def test_any_shape_and_setting_is_as_large_as_its_formula(
    rows: int, width: int, register: int, block: int, data: st.DataObject
) -> None:
    latent = data.draw(st.integers(1, min(block, 8)))
    codec = SeedLM(register, block, latent, data.draw(st.none() | st.integers(1, 600)))
    weight = gaussian(rows, width)
    encoded, blocks = codec.encode(weight), rows * math.ceil(width / block)
    expected = sum(math.ceil(blocks * bits / 8) for bits in (register, 4, 4 * latent)) + 2
    assert encoded.bytes == expected and encoded.bits_a_weight == 8 * expected / (rows * width)
    assert encoded.tensors["scale"].dtype == torch.float16
    found = codec.decode(encoded)
    assert found.shape == weight.shape and relative_error(weight, found) < 1.0


def test_nominal_bits() -> None:
    assert SeedLM().bits == 4 and SeedLM(block=12, latent=4).bits == 3
    assert FAST.encode(gaussian(16, 64)).bits_a_weight == FAST.bits + 16 / (16 * 64)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_short_last_block_is_fitted_better_than_a_full_one(width: int) -> None:
    """Where no more weights than coefficients are left, all seeds catch all of them: only rounding tells them apart."""
    codec, weight = SeedLM(register=10, block=12, latent=4), gaussian(64, width)
    assert relative_error(weight, codec.decode(codec.encode(weight))) < 0.01


def test_equal_weights_give_equal_bytes() -> None:
    codec: Codec = FAST
    weight, h = gaussian(16, 50), torch.rand(50, generator=torch.Generator().manual_seed(1))
    one, two = codec.encode(weight, h, seed=0), codec.encode(weight.clone(), h.clone(), seed=1)
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)
    assert torch.equal(codec.decode(one), codec.decode(two))


def test_decoding_does_not_depend_on_the_rows_beside_or_on_refinement() -> None:
    weight = gaussian(16, 50)
    encoded = FAST.encode(weight)
    assert torch.equal(replace(FAST, refined=None).decode(encoded), FAST.decode(encoded))


def test_importances_lower_the_error_that_they_weigh() -> None:
    weight = gaussian(64, 60)
    h = torch.rand(60, generator=torch.Generator().manual_seed(1)) ** 4 * 1e30
    plain, weighted = FAST.decode(FAST.encode(weight)), FAST.decode(FAST.encode(weight, h))
    assert relative_error(weight, weighted, h) < 0.6 * relative_error(weight, plain, h)
    assert relative_error(weight, plain) < relative_error(weight, weighted)


@pytest.mark.parametrize("size", [0.0, 1e-300, 3.7, 1e30])
def test_equal_importances_change_nothing(size: float) -> None:
    weight, h = gaussian(16, 50), torch.full((50,), size, dtype=torch.float64)
    plain, weighted = FAST.encode(weight).tensors, FAST.encode(weight, h).tensors
    assert all(torch.equal(plain[name], weighted[name]) for name in plain)


def test_inputs_without_importance_stay_near() -> None:
    weight, h = gaussian(64, 32), torch.ones(32)
    h[::2] = 0
    found = FAST.decode(FAST.encode(weight, h))
    assert found.abs().max() < 4 * weight.abs().max()


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e4])
def test_the_scale_fits_weights_of_any_size(size: float) -> None:
    weight = gaussian(32, 64)
    assert relative_error(weight * size, FAST.decode(FAST.encode(weight * size))) == pytest.approx(0.09, rel=0.1)


def test_an_outlier_leaves_the_other_weights_their_precision() -> None:
    weight = gaussian(32, 64)
    before = relative_error(weight[1:], FAST.decode(FAST.encode(weight))[1:])
    weight[0, 0] = 500.0
    found = FAST.decode(FAST.encode(weight))
    assert relative_error(weight[1:], found[1:]) < 1.05 * before
    assert found[0, 0].item() == pytest.approx(500, rel=0.2)


def test_zeros_stay_zeros() -> None:
    assert not FAST.decode(FAST.encode(torch.zeros(3, 20))).any()
    weight = gaussian(3, 24)
    weight[1] = 0
    assert not FAST.decode(FAST.encode(weight))[1].any()


@given(st.integers(2, 10), st.integers(1, 1024), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_largest_energies_are_found_in_groups(register: int, count: int, seed: int) -> None:
    energy, count = gaussian(3, 2**register, seed), min(count, 2**register)
    found = energy.gather(1, _largest(energy, count))
    assert torch.equal(found.sort(1, descending=True).values, energy.sort(1, descending=True).values[:, :count])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"register": 3}, "a register of 3 bits"),
        ({"register": 17}, "a register of 17 bits"),
        ({"latent": 9, "block": 12}, "latent <= 8"),
        ({"latent": 3, "block": 2}, "latent <= block"),
        ({"latent": 0}, "1 <= latent"),
        ({"block": 25}, "block <= 24"),
        ({"refined": 0}, "0 refined seeds"),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SeedLM(**arguments)


@pytest.mark.parametrize(
    ("weight", "importance", "reason"),
    [
        (torch.zeros(3), None, "not a finite matrix"),
        (torch.zeros(0, 3), None, "not a finite matrix"),
        (torch.full((2, 2), math.nan), None, "not a finite matrix"),
        (torch.full((2, 2), 1e39, dtype=torch.float64), None, "not a finite matrix"),
        (torch.full((2, 2), 70000.0), None, "a weight of size 70000: the scale is float16"),
        (torch.ones(2, 3), torch.ones(2), "one >= 0 an input"),
        (torch.ones(2, 3), -torch.ones(3), "one >= 0 an input"),
    ],
)
def test_bad_weights_are_refused(weight: torch.Tensor, importance: torch.Tensor | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FAST.encode(weight, importance)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seeds": lambda x: x * 0}, "a seed is 0"),
        ({"seeds": lambda x: x[:-1]}, r"seeds: torch.uint8 \(14,\), but \(15,\) bytes"),
        ({"seeds": lambda x: x.char()}, "seeds: torch.int8"),
        ({"exponents": lambda x: x | 0xF0}, "exponents: bits stand behind the end"),
        ({"coefficients": lambda x: x[None]}, "coefficients: torch.uint8"),
        ({"scale": lambda x: x.float()}, "one finite float16 > 0"),
        ({"scale": lambda x: x * math.inf}, "one finite float16 > 0"),
        ({"scale": lambda x: x * 0}, "one finite float16 > 0"),
        ({"scale": lambda x: x.expand(2)}, "one finite float16 > 0"),
    ],
)
def test_damaged_tensors_are_refused(change: dict[str, Any], reason: str) -> None:
    encoded = FAST.encode(gaussian(3, 40))
    tensors = {name: change.get(name, lambda x: x)(tensor) for name, tensor in encoded.tensors.items()}
    with pytest.raises(ValueError, match=reason):
        FAST.decode(replace(encoded, tensors=tensors))


@pytest.mark.parametrize("change", [{"shape": (3, 49)}, {"shape": (40,)}, {"shape": (0, 40)}, {"codec": "nf4"}])
def test_another_shape_or_codec_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        FAST.decode(replace(FAST.encode(gaussian(3, 40)), **change))


def test_missing_tensors_and_other_settings_are_refused() -> None:
    encoded = FAST.encode(gaussian(3, 40))
    with pytest.raises(ValueError, match=r"tensors \['scale'\]"):
        FAST.decode(replace(encoded, tensors={"scale": encoded.tensors["scale"]}))
    for other in (SeedLM(register=9), SeedLM(register=8, latent=4), SeedLM(register=8, block=10)):
        with pytest.raises(ValueError, match="bytes are expected"):
            other.decode(encoded)
