"""The 8-bit head: products straight from the codes, against float64, in any shape, and what runs without a compiler."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.bitnet.lattice import Lattice, absmax
from phases.errors import MissingDependency
from phases.packed import head
from phases.packed.kernels.native import INSTRUCTIONS
from phases.packed.kernels.rows import RowsKernel
from phases.packed.modules import PackedHead

SHAPES = [(64, 512, 128), (33, 300, 128), (5, 45, 20), (17, 70, None), (3, 16, 16), (9, 31, 500), (1, 1, 1)]
ROUNDING = 1e-6


@pytest.fixture(params=INSTRUCTIONS[1:])
def kernel(request: pytest.FixtureRequest) -> RowsKernel:
    return best_of(request.param)


def best_of(instructions: str | None = None) -> RowsKernel:
    try:
        return RowsKernel(instructions)
    except (MissingDependency, AssertionError) as error:
        pytest.skip(str(error))


def matrix(rows: int, columns: int, group: int | None) -> Lattice:
    return absmax(torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)), 8, group)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[-1]))


def product(kernel: RowsKernel, x: torch.Tensor, lattice: Lattice) -> torch.Tensor:
    return kernel.linear(x, lattice.codes_OI, lattice.scale_OG, lattice.group)


def close(y: torch.Tensor, x: torch.Tensor, lattice: Lattice) -> None:
    """Within float32's rounding of the sum of magnitudes, output by output."""
    weight = lattice.dequantise().double().T
    bound = ROUNDING * (x.double().abs() @ weight.abs())
    assert y.dtype == torch.float32
    assert ((y.double() - x.double() @ weight).abs() <= bound).all()


@pytest.mark.parametrize("count", [1, 3, 4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_float64(kernel: RowsKernel, shape: tuple[int, int, int | None], count: int) -> None:
    lattice, x = matrix(*shape), tokens(count, shape[1])
    close(product(kernel, x, lattice), x, lattice)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 40), st.integers(1, 150), st.one_of(st.none(), st.integers(1, 160)), st.integers(0, 9))
def test_any_shape(rows: int, columns: int, group: int | None, count: int) -> None:
    lattice, x = matrix(rows, columns, group), tokens(count, columns)
    close(product(best_of(), x, lattice), x, lattice)


def test_extreme_codes_and_sums_that_float32_holds_are_exact(kernel: RowsKernel) -> None:
    codes = torch.randint(-128, 128, (7, 300), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    codes[0], codes[1] = -128, 127
    x = torch.arange(-150, 150).expand(2, 300)
    y = kernel.linear(x.float(), codes, torch.ones(7, 3).half(), 128)
    assert torch.equal(y.long(), x @ codes.long().T)


def test_it_reads_its_own_activations_only(kernel: RowsKernel) -> None:
    """A vector that reached past a group's or the matrix's end would meet a NaN."""
    lattice, room = matrix(5, 45, 20), torch.full((200,), torch.nan)
    x = room[60:150].view(2, 45)
    x.copy_(tokens(2, 45))
    close(product(kernel, x, lattice), x, lattice)


def test_a_token_does_not_depend_on_its_batch_nor_on_threads(
    kernel: RowsKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phases.packed.kernels.rows.WEIGHTS_A_THREAD", 2**17)
    rows = 2**18 // 512 + 3
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (rows, 512), generator=generator, dtype=torch.int8)
    lattice = Lattice(codes, torch.rand(rows, 4, generator=generator).half(), 128)
    x, before = tokens(7, 512), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(product(kernel, x, lattice))
            results.append(torch.cat([product(kernel, row[None], lattice) for row in x]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(y, results[0]) for y in results[1:])


def test_broken_tokens_do_not_look_like_results(kernel: RowsKernel) -> None:
    lattice, x = matrix(24, 45, 20), tokens(3, 45)
    x[0, 44], x[1, 3] = torch.nan, torch.inf
    y = product(kernel, x, lattice)
    assert y[0].isnan().all()
    assert not y[1].isfinite().any()
    assert y[2].isfinite().all()


def test_other_types_and_strides(kernel: RowsKernel) -> None:
    lattice = matrix(24, 45, 20)
    x = tokens(45, 3).t()
    close(product(kernel, x, lattice), x, lattice)
    for dtype in (torch.bfloat16, torch.float64):
        close(product(kernel, x.to(dtype), lattice), x.to(dtype).float(), lattice)


def test_what_the_kernel_would_misread_is_refused(kernel: RowsKernel) -> None:
    lattice = matrix(24, 45, 20)
    codes, scales = lattice.codes_OI, lattice.scale_OG
    wrong = [
        (tokens(1, 44), codes, scales, 20),
        (tokens(1, 45), codes, scales, 10),
        (tokens(1, 45), codes, scales, None),
        (tokens(1, 45), codes.t().contiguous().t(), scales, 20),
        (tokens(1, 45), codes.int(), scales, 20),
        (tokens(1, 45), codes, scales.float(), 20),
        (tokens(1, 45).requires_grad_(), codes, scales, 20),
    ]
    for arguments in wrong:
        with pytest.raises(AssertionError):
            kernel.linear(*arguments)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process without a library and without a compiler."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    head._kernel.cache_clear()
    yield
    head._kernel.cache_clear()


def packed_head(dtype: torch.dtype = torch.float32) -> PackedHead:
    lattice = matrix(24, 45, 20)
    layer = PackedHead((24, 45), "8bit", 20, dtype, torch.nn.Parameter(tokens(24).to(dtype), False)).eval()
    layer.load_state_dict({"codes": lattice.codes_OI, "scale": lattice.scale_OG, "bias": layer.bias.clone()})
    layer.kernel = "auto"
    return layer


def test_without_a_compiler_a_head_is_unpacked(fresh: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "phases.packed")
    layer, x = packed_head(), tokens(2, 1, 45)
    for _ in range(2):
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert caplog.text.count("heads are unpacked") == 1
    assert "no-such-compiler" in caplog.text


@pytest.mark.parametrize("count", [1, head.MOST_TOKENS, head.MOST_TOKENS + 1])
def test_a_head_in_bfloat16(count: int) -> None:
    layer, x = packed_head(torch.bfloat16), tokens(count, 45).bfloat16()
    y = layer(x)
    assert y.dtype == torch.bfloat16
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(y, expected, rtol=2**-6, atol=2**-6 * float(expected.abs().max()))
