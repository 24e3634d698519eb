"""What coding of scales and indices brings, by hand; and the widths that a share of float16 permits."""

import pytest
import torch

from phases.compression.config import CodecsConfig
from phases.compression.seedlm import SeedLM
from phases.compression.squeezes import squeezes
from phases.compression.stored import Coding, Stored, squeezed
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.errors import ConfigError

BOOK = VPTQ(vector=4, codebook_size=16, iterations=3)


def stored(scale_bits: int, threshold: float = 0.5) -> Stored:
    """Matrices of (40, 64) under a ternary codec with 2 scales a row, VPTQ with 1 a row, and SeedLM."""
    torch.manual_seed(0)
    a, b, c = (torch.randn(40, 64) for _ in range(3))
    codecs: dict[str, Coding] = {"a": Ternary(threshold, 32, scale_bits), "b": BOOK, "c": SeedLM()}
    shared = BOOK.encode_together({"b": b})
    encoded = {
        "a": codecs["a"].encode(a),
        "b": squeezed(shared.matrices["b"], BOOK, scale_bits),
        "c": SeedLM().encode(c),
    }
    return Stored(codecs, encoded, {BOOK: shared.codebook_RKV}, {})


def test_bytes_before_are_float16_and_packed_and_after_are_those_that_are_stored() -> None:
    one = stored(8)
    scales, indices = squeezes(one)
    assert scales.bytes_before == 2 * (40 * 2 + 40)
    assert indices.bytes_before == 40 * 64 // 5 + 40 * 16 * 4 // 8
    parts = [(part, tensor.nbytes) for name in "ab" for part, tensor in one.encoded[name].tensors.items()]
    assert scales.bytes == sum(size for part, size in parts if part.startswith("scales"))
    assert indices.bytes == sum(size for part, size in parts if not part.startswith("scales"))
    assert scales.helped and scales.bytes < 0.7 * scales.bytes_before


def test_what_is_not_coded_brings_nothing() -> None:
    scales, _ = squeezes(stored(16))
    assert scales.bytes == scales.bytes_before and not scales.helped


def test_the_entropy_coder_helps_where_codes_are_uneven() -> None:
    assert squeezes(stored(8, threshold=2.0))[1].helped


@pytest.mark.parametrize(
    ("share", "bits"), [(0.125, 2), (0.2, 3), (0.5, 8), (0.6, 8), (0.99, 8), (1.0, 16)], ids=lambda value: f"{value:g}"
)
def test_a_share_is_rounded_down_to_a_width_that_there_is(share: float, bits: int) -> None:
    assert CodecsConfig(hyper_ratio=share).scale_bits == bits
    assert CodecsConfig(hyper_ratio=share, names=("ternary",)).scale_bits == 16


def test_a_share_below_every_width_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'hyper_ratio' = 0.05: Input should be greater than or equal to 0.125"):
        CodecsConfig.parse({"hyper_ratio": 0.05}, "compression.codecs")
