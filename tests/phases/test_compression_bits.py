"""Numbers of a few bits: against Python's own integers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phases.compression.bits import bits_for, pack, unpack


@given(st.integers(1, 32).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1), max_size=40))))
def test_as_one_long_integer(case: tuple[int, list[int]]) -> None:
    bits, numbers = case
    packed = pack(torch.tensor(numbers, dtype=torch.int64), bits)
    whole = sum(number << (i * bits) for i, number in enumerate(numbers))
    assert bytes(packed.tolist()) == whole.to_bytes(-(-len(numbers) * bits // 8), "little")
    assert unpack(packed, len(numbers), bits, "codes").tolist() == numbers


def test_bits_for() -> None:
    assert [bits_for(size) for size in (1, 2, 3, 256, 257)] == [0, 1, 2, 8, 9]


@pytest.mark.parametrize(
    ("packed", "count", "reason"),
    [
        (torch.zeros(1, dtype=torch.int8), 2, "codes: torch.int8"),
        (torch.zeros(2, dtype=torch.uint8), 2, r"but \(1,\) bytes are expected"),
        (torch.tensor([0x80], dtype=torch.uint8), 2, "codes: bits stand behind the end"),
    ],
)
def test_what_was_not_packed_is_refused(packed: torch.Tensor, count: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        unpack(packed, count, 3, "codes")
