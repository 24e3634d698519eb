"""What coding brought of that which codecs leave: scales by hyper-compression, indices by the entropy coder.

    [(one.name, one.bytes_before, one.bytes) for one in squeezes(stored)]

Before: scales in float16; indices packed, of ternary codes five to a byte, of a codebook ⌈log₂ k⌉ bits each. After: all
that is stored of them, side information included. What SeedLM and hyper-compression carry is coded no further.
"""

from phases.bitnet.lattice import groups_of
from phases.compression.bits import bits_for
from phases.compression.codec import Encoded
from phases.compression.scales import SCALES
from phases.compression.stored import STREAM, Stored, codes_of
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.strict import StrictModel

TRITS = 5
"""In a byte: 3⁵ = 243."""


class Squeeze(StrictModel):
    """Of one kind of numbers."""

    name: str
    """What they are."""
    bytes_before: int
    bytes: int

    @property
    def helped(self) -> bool:
        """Whether it takes less than before."""
        return self.bytes < self.bytes_before


def squeezes(stored: Stored) -> tuple[Squeeze, Squeeze]:
    """Scales, and indices."""
    found = [_of(stored.encoded[n], codec) for n, codec in stored.codecs.items() if isinstance(codec, Ternary | VPTQ)]
    names = ("scales", "indices")
    totals = [[sum(one[place][when] for one in found) for when in (0, 1)] for place in (0, 1)]
    scales, indices = (Squeeze(name=n, bytes_before=t[0], bytes=t[1]) for n, t in zip(names, totals, strict=True))
    return scales, indices


def _of(encoded: Encoded, codec: Ternary | VPTQ) -> tuple[tuple[int, int], tuple[int, int]]:
    """Bytes before and after of the scales, and of the indices."""
    rows, width = encoded.shape
    if isinstance(codec, Ternary):
        scales = 1 if codec.group is None else rows * groups_of(width, codec.group)
        packed = -(-rows * width // TRITS)
    else:
        scales = rows if codec.scales == "row" else 1
        packed = -(-codes_of(encoded, codec) * bits_for(codec.codebook_size) // 8)
    stored = {part: tensor.nbytes for part, tensor in encoded.tensors.items()}
    coded = sum(size for part, size in stored.items() if part == "scales" or part.startswith(SCALES))
    return (2 * scales, coded), (packed, stored.get("codes", 0) + stored.get(STREAM, 0))
