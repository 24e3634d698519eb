"""Ternary codes at their entropy: against bitnet's lattice, by a slow reference, and in bits."""

import math
from dataclasses import replace

import pytest
import torch

from phases.bitnet.lattice import Lattice, ternary
from phases.compression.codec import Codec, Encoded, relative_error
from phases.compression.ternary import Ternary


def slow(weight: torch.Tensor, codec: Ternary) -> torch.Tensor:
    """What is decoded of float16 scales, group by group in plain Python."""
    out = torch.zeros_like(weight)
    step = codec.group or weight.numel()
    parts = (
        [(r, slice(c, c + step)) for r in range(len(weight)) for c in range(0, weight.shape[1], step)]
        if codec.group
        else [(slice(None), slice(None))]
    )
    for part in parts:
        w = weight[part]
        gamma = float((sum(abs(float(x)) for x in w.flatten()) / torch.tensor(float(w.numel()))).half())
        kept = [abs(float(x)) for x in w.flatten() if abs(float(x)) / gamma > codec.threshold]
        plain = [abs(float(x)) for x in w.flatten() if abs(float(x)) / gamma > 0.5]
        if kept:
            scale = torch.tensor(gamma * (sum(kept) / len(kept)) / (sum(plain) / len(plain))).half().float()
            out[part] = torch.where(w.abs() / gamma > codec.threshold, w.sign() * scale, 0.0)
    return out


@pytest.mark.parametrize("group", [16, 24, None])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.3])
def test_against_a_slow_reference(threshold: float, group: int | None) -> None:
    codec, weight = Ternary(threshold, group, scale_bits=16), torch.randn(6, 56)
    torch.testing.assert_close(codec.decode(codec.encode(weight)), slow(weight, codec), rtol=2e-3, atol=0)


@pytest.mark.parametrize("group", [16, 128, None])
def test_at_one_half_it_is_bitnets_lattice_to_the_bit(group: int | None) -> None:
    weight = torch.randn(33, 200) * torch.rand(33, 1)
    ours, theirs = Ternary(0.5, group).round(weight), ternary(weight, group)
    assert torch.equal(ours.codes_OI, theirs.codes_OI) and torch.equal(ours.scale_OG, theirs.scale_OG)


def test_codes_are_exact_and_scales_near() -> None:
    codec, weight = Ternary(0.7, 32), torch.randn(64, 96)
    rounded, found = codec.round(weight), codec.lattice(codec.encode(weight))
    assert torch.equal(found.codes_OI, rounded.codes_OI)
    torch.testing.assert_close(found.scale_OG.float(), rounded.scale_OG.float(), rtol=0.02, atol=0)
    exact = replace(codec, scale_bits=16)
    assert torch.equal(exact.lattice(exact.encode(weight)).scale_OG, rounded.scale_OG)


def test_the_threshold_buys_bytes_and_costs_error() -> None:
    weight = torch.randn(256, 256)
    bits, errors = [], []
    for threshold in (0.5, 0.8, 1.1, 1.5):
        codec = Ternary(threshold)
        encoded = codec.encode(weight)
        zeros = math.erf(threshold * math.sqrt(2 / math.pi) / math.sqrt(2))  # |w| < threshold · E|w| of a Gaussian
        entropy = -zeros * math.log2(zeros) - (1 - zeros) * math.log2((1 - zeros) / 2)
        bits.append(encoded.bits_a_weight)
        errors.append(relative_error(weight, codec.decode(encoded)))
        assert entropy - 0.01 < bits[-1] - 8 / 128 < entropy + 0.05
    assert bits[1:] == sorted(bits[1:], reverse=True) and errors[2] > errors[1] and errors[3] > errors[2]
    assert errors[0] == pytest.approx(0.263, abs=0.02)  # absmean's, which the reference measured


def test_zeros_and_single_groups_stay_what_they_are() -> None:
    codec, weight = Ternary(0.5, 8), torch.zeros(4, 16)
    weight[1, :8] = 3.0
    assert torch.equal(codec.decode(codec.encode(weight)).sign(), weight.sign())
    small = torch.randn(2, 8)
    assert "scales" in Ternary(0.5, 8).encode(small).tensors  # too few for hyper-compression's side information


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"threshold": 0.0}, "threshold"), ({"group": 0}, "groups of 0"), ({"scale_bits": 9}, "scales of 9 bits")],
)
def test_settings_that_make_no_codec(settings: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Ternary(**settings)  # type: ignore[arg-type]


def test_damaged_or_foreign_tensors_are_refused() -> None:
    codec: Codec = Ternary(0.5, 16)
    encoded = codec.encode(torch.randn(8, 32))
    for name in encoded.tensors:
        with pytest.raises(ValueError, match="missing or left over|missing, left over"):
            codec.decode(replace(encoded, tensors={n: t for n, t in encoded.tensors.items() if n != name}))
    with pytest.raises(ValueError, match="damaged"):
        codec.decode(replace(encoded, tensors={**encoded.tensors, "codes": encoded.tensors["codes"].flip(0)}))
    with pytest.raises(ValueError, match="a matrix of ternary is needed"):
        codec.decode(Encoded("vptq", (8, 32), encoded.tensors))
    bad = Ternary(0.5, 16, 16)
    plain = bad.store(Lattice(torch.zeros(2, 16, dtype=torch.int8), torch.tensor([[1.0], [-1.0]]).half(), 16))
    with pytest.raises(ValueError, match="negative"):
        bad.decode(plain)
