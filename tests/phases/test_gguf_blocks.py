"""Blocks against gguf, by llama.cpp's maintainers: its dequantisation, and its packing where that is exact."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from phases.bitnet.lattice import absmax, ternary
from phases.packed.gguf_blocks import fits, pack


def weights(rows: int, width: int) -> torch.Tensor:
    """Random rows of very different size, one of them zero."""
    torch.manual_seed(0)
    scale = torch.logspace(-6, 2, rows).unsqueeze(1)
    return torch.randn(rows, width) * scale * (torch.arange(rows) != 1).unsqueeze(1)


@pytest.mark.parametrize("group", [256, 512, None])
@pytest.mark.parametrize("kind", [Kind.TQ1_0, Kind.TQ2_0])
def test_ternary_blocks_are_those_of_gguf_byte_for_byte(kind: Kind, group: int | None) -> None:
    """300 blocks, so that all 243 bytes of TQ1_0 occur."""
    source = weights(75, 1024) if group else torch.randn(75, 1024, generator=torch.Generator().manual_seed(0))
    lattice = ternary(source, group)
    packed, exact = pack(lattice, kind), lattice.dequantise().numpy()
    assert np.array_equal(packed, gguf.quants.quantize(exact, kind))
    assert np.array_equal(gguf.quants.dequantize(packed, kind), exact)


@pytest.mark.parametrize("group", [32, 64, 128, 1000, None])
def test_q4_0_holds_ternary_weights_exactly(group: int | None) -> None:
    lattice = ternary(weights(6, 384), group)
    exact = lattice.dequantise().numpy()
    assert np.array_equal(gguf.quants.dequantize(pack(lattice, Kind.Q4_0), Kind.Q4_0), exact)
    with np.errstate(invalid="ignore", over="ignore"):
        assert not np.array_equal(gguf.quants.dequantize(gguf.quants.quantize(exact, Kind.Q4_0), Kind.Q4_0), exact), (
            "gguf's own rounding is exact, so that ours is not needed"
        )


@pytest.mark.parametrize("group", [32, 128, None])
@pytest.mark.parametrize(("bits", "kind"), [(8, Kind.Q8_0), (4, Kind.Q4_0)])
def test_embedding_blocks_hold_their_codes_exactly(bits: int, kind: Kind, group: int | None) -> None:
    lattice = absmax(weights(6, 384), bits, group)
    assert np.array_equal(gguf.quants.dequantize(pack(lattice, kind), kind), lattice.dequantise().numpy())


@pytest.mark.parametrize(
    ("kind", "width", "group", "expected"),
    [
        (Kind.TQ2_0, 512, 256, True),
        (Kind.TQ2_0, 512, None, True),
        (Kind.TQ2_0, 512, 1000, True),  # one group a row
        (Kind.TQ2_0, 512, 128, False),
        (Kind.TQ2_0, 512, 384, False),  # the second block lies in two groups
        (Kind.TQ2_0, 352, 256, False),
        (Kind.Q4_0, 352, 128, True),
        (Kind.Q4_0, 352, 48, False),
        (Kind.Q4_0, 40, None, False),
        (Kind.Q8_0, 64, 32, True),
    ],
)
def test_a_block_has_one_scale(kind: Kind, width: int, group: int | None, expected: bool) -> None:
    assert fits(kind, width, group) is expected
