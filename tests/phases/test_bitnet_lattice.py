"""Rounding to the lattice against loops, against transformers' own BitNet, and read back without loss."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phases.bitnet.lattice import absmax, groups_of, nearest_ternary, read_absmax, read_ternary, ternary
from phases.errors import CheckpointError

GROUPS = st.one_of(st.none(), st.integers(1, 300))
SIZES = st.floats(1e-9, 1e6)


def by_hand(row: list[float], group: int) -> tuple[list[int], list[float]]:
    """Codes and scales of one row, one number at a time."""
    codes, scales = [], []
    for start in range(0, len(row), group):
        part = row[start : start + group]
        scale = torch.tensor(sum(map(abs, part)) / len(part)).half().item()
        scales.append(scale)
        for w in part:
            code = 0 if scale == 0 else round(abs(w) / scale)  # Python and torch both round halves to even
            codes.append(int(math.copysign(min(1, code), w)) if code else 0)
    return codes, scales


@pytest.mark.parametrize(("width", "group"), [(128, 128), (256, 128), (352, 128), (7, 3), (5, 8), (6, 1)])
def test_ternary_equals_a_loop(width: int, group: int) -> None:
    weight = torch.randn(4, width, generator=torch.Generator().manual_seed(width)) * 0.02
    found = ternary(weight, group)
    for row, codes, scale in zip(weight.tolist(), found.codes_OI.tolist(), found.scale_OG.tolist(), strict=True):
        expected_codes, expected_scale = by_hand(row, group)
        assert codes == expected_codes
        assert scale == pytest.approx(expected_scale, rel=1e-3)  # the loop sums in another order
    products = [
        [c * found.scale_OG[o, i // group].item() for i, c in enumerate(r)]
        for o, r in enumerate(found.codes_OI.tolist())
    ]
    assert found.dequantise().tolist() == products


def test_codes_are_chosen_with_the_scale_that_is_stored() -> None:
    """Half a million weights: some lie between the thresholds of the scale before and after it was rounded."""
    weight = torch.randn(4000, 128, generator=torch.Generator().manual_seed(0))
    found = ternary(weight, 128)
    expected = (weight / found.scale_OG.float()).round().clamp(-1, 1)
    assert torch.equal(found.codes_OI.float(), expected)
    exact = (weight / weight.abs().mean(1, keepdim=True)).round().clamp(-1, 1)
    assert not torch.equal(exact, expected)  # so that the line above says something


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler that this import brings along
def test_one_scale_a_tensor_is_transformers_bitnet() -> None:
    from transformers.integrations.bitnet import WeightQuant

    weight = torch.randn(48, 80, generator=torch.Generator().manual_seed(0))
    with torch.compiler.set_stance("force_eager"):
        expected = WeightQuant.apply(weight)
    found = ternary(weight, None)
    assert found.scale_OG.shape == (1, 1)
    assert torch.equal(found.codes_OI, expected.sign().to(torch.int8))
    torch.testing.assert_close(found.dequantise(), expected, rtol=5e-4, atol=0)  # its scale is not float16


def test_a_normal_distribution_has_the_zeros_of_its_threshold() -> None:
    codes = ternary(torch.randn(512, 1280, generator=torch.Generator().manual_seed(0)), 128).codes_OI
    expected = math.erf(0.5 * math.sqrt(2 / math.pi) / math.sqrt(2))  # P(|x| < γ/2), γ = E|x|
    assert (codes == 0).float().mean().item() == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("bits", [4, 8])
def test_absmax_equals_a_loop(bits: int) -> None:
    weight = torch.randn(3, 10, generator=torch.Generator().manual_seed(bits))
    found, top = absmax(weight, bits, 4), 2 ** (bits - 1) - 1
    for o, row in enumerate(weight.tolist()):
        for i, w in enumerate(row):
            part = row[i // 4 * 4 : i // 4 * 4 + 4]
            scale = torch.tensor(max(map(abs, part)) / top).half().item()
            assert found.codes_OI[o, i].item() == max(-top, min(top, round(w / scale)))
    assert (found.dequantise() - weight).abs().max() <= found.scale_OG.max() / 2 + 1e-3


@given(st.integers(1, 9), st.integers(1, 300), GROUPS, SIZES, st.integers(0, 2**31))
def test_codes_and_scales_are_read_back(rows: int, width: int, group: int | None, size: float, seed: int) -> None:
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * size
    weight[0, : width // 2] = 0.0
    for made, read in (
        (ternary(weight, group), lambda w: read_ternary(w, group, "w")),
        (absmax(weight, 8, group), lambda w: read_absmax(w, 8, group, "w")),
        (absmax(weight, 4, group), lambda w: read_absmax(w, 4, group, "w")),
    ):
        found = read(made.dequantise())
        assert torch.equal(found.codes_OI, made.codes_OI) and torch.equal(found.scale_OG, made.scale_OG)
        assert torch.isfinite(made.scale_OG).all()
        assert made.scale_OG.shape == ((1, 1) if group is None else (rows, groups_of(width, group)))


def test_rounding_twice_is_rounding_once_with_another_scale() -> None:
    """Ternary is no projection: zeros pull the mean down. So a stored lattice must be read, never rounded again."""
    once = ternary(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)), 64)
    twice = ternary(once.dequantise(), 64)
    assert torch.equal(once.codes_OI, twice.codes_OI) and not torch.equal(once.scale_OG, twice.scale_OG)


def test_weights_off_the_lattice_are_counted_and_refused() -> None:
    weight = ternary(torch.randn(4, 32, generator=torch.Generator().manual_seed(0)), 16).dequantise()
    assert nearest_ternary(weight, 16)[1] == 0
    weight[2, 5] += 1e-6
    weight[3, 1] *= 0.5
    assert nearest_ternary(weight, 16)[1] >= 2
    with pytest.raises(CheckpointError, match=r"up_proj: .* of 128 weights are not on the ternary lattice"):
        read_ternary(weight, 16, "up_proj")
    assert (
        nearest_ternary(ternary(torch.randn(4, 32), None).dequantise(), 16)[1] == 0
    )  # a coarser group lies on a finer
    with pytest.raises(CheckpointError, match="whole tensor"):
        read_ternary(ternary(torch.randn(4, 32), 16).dequantise(), None, "w")
