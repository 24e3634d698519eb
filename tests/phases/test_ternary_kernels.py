"""Every kernel against integers summed in int64 and scaled in float64, from codes that numpy rounded."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.bitnet.estimator import quantise_activations
from phases.bitnet.lattice import Lattice, groups_of
from phases.errors import MissingDependency
from phases.packed.kernels import Kernel, build, choose_kernel
from phases.packed.kernels.activations import rounded
from phases.packed.kernels.exact import ExactKernel
from phases.packed.kernels.int4 import Int4Kernel
from phases.packed.kernels.layout import pack, unpack
from phases.packed.kernels.native import INSTRUCTIONS, NativeKernel

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
KERNELS = ("exact", *INSTRUCTIONS)
SHAPES = [(64, 512, 128), (33, 300, 128), (16, 512, 256), (17, 700, 256), (50, 70, None), (5, 45, 20), (1, 1, 1)]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The C++ kernel, built once from nothing, away from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("extensions")))
        try:
            build.load()
        except MissingDependency as error:
            pytest.skip(str(error))
        yield


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return kernel_of(request.param, request)


def kernel_of(name: str, request: pytest.FixtureRequest) -> Kernel:
    if name == "exact":
        return ExactKernel("int8")
    request.getfixturevalue("library")
    if INSTRUCTIONS.index(name) > build.load().ternary_instructions():
        pytest.skip(f"this processor has no {name}")
    return NativeKernel(name)


def lattice(rows: int, columns: int, group: int | None, seed: int = 0) -> Lattice:
    """Random codes and scales; the first row is zero."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-1, 2, (rows, columns), generator=generator, dtype=torch.int8)
    codes[0] = 0
    shape = (1, 1) if group is None else (rows, groups_of(columns, group))
    return Lattice(codes, torch.rand(shape, generator=generator).half(), group)


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(x: torch.Tensor, matrix: Lattice) -> np.ndarray:
    """(N, O) float64: exact sums of integers, then scales and the step of the token."""
    values = x.float().numpy()
    step = np.maximum(np.abs(values).max(-1, keepdims=True), np.float32(1e-5)) / np.float32(127)
    integers = np.rint(values / step).astype(np.int64)
    rows, columns = matrix.codes_OI.shape
    total = np.zeros((len(values), rows))
    for number, start in enumerate(range(0, columns, matrix.group or columns)):
        part = slice(start, start + (matrix.group or columns))
        sums = integers[:, part] @ matrix.codes_OI.numpy().astype(np.int64)[:, part].T
        total += sums * matrix.scale_OG.expand(rows, -1)[:, number].double().numpy()
    return total * step.astype(np.float64)


def close(y: torch.Tensor, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    largest = max(float(np.abs(expected).max()), 1e-30)
    np.testing.assert_allclose(y.double().numpy(), expected, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("batch", [1, 3, 4, 17])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_the_reference(kernel: Kernel, shape: tuple[int, int, int | None], batch: int) -> None:
    matrix, x = lattice(*shape), tokens(batch, shape[1])
    close(kernel.linear(x, kernel.prepare(matrix)), reference(x, matrix))


@pytest.mark.parametrize("group", [128, 256, 48, None])
def test_integer_sums_are_exact(kernel: Kernel, group: int | None) -> None:
    """Scales of 1 and a step of 1 leave nothing but the sum; ± 127 everywhere is the largest there is."""
    codes = lattice(40, 2048, group).codes_OI
    codes[1], codes[2] = 1, -1
    shape = (1, 1) if group is None else (40, groups_of(2048, group))
    matrix = Lattice(codes, torch.ones(shape, dtype=torch.float16), group)
    x = torch.randint(-127, 128, (5, 2048), generator=torch.Generator().manual_seed(3)).float()
    x[:, 0], x[1], x[2] = 127, 127, -127
    expected = x.long() @ codes.long().T
    assert torch.equal(kernel.linear(x, kernel.prepare(matrix)).long(), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 150), st.one_of(st.none(), st.integers(1, 140)), st.integers(1, 9))
def test_any_shape(library: None, rows: int, columns: int, group: int | None, batch: int) -> None:
    matrix, x, best = lattice(rows, columns, group, rows), tokens(batch, columns, seed=columns), NativeKernel()
    prepared = pack(matrix)
    assert torch.equal(unpack(prepared), matrix.dequantise())
    close(best.linear(x, prepared), reference(x, matrix))


def test_bias_shapes_and_types(kernel: Kernel) -> None:
    matrix, bias = lattice(24, 256, 128), tokens(24, seed=5)
    prepared, x = kernel.prepare(matrix), tokens(2, 3, 256).bfloat16()
    y = kernel.linear(x, prepared, bias.bfloat16())
    assert y.shape == (2, 3, 24)
    assert y.dtype == torch.bfloat16
    close(y.float().view(6, 24), reference(x.view(6, 256), matrix) + bias.bfloat16().double().numpy(), 2**-8)
    assert kernel.linear(torch.empty(0, 256), prepared).shape == (0, 24)
    columns = tokens(256, 4).t()  # not contiguous
    close(kernel.linear(columns, prepared, bias), reference(columns, matrix) + bias.double().numpy())


def test_ties_round_to_even_as_in_training(kernel: Kernel) -> None:
    x = torch.cat([torch.arange(-126.5, 127), torch.tensor([127.0])])[None]
    one = torch.eye(255, dtype=torch.int8)
    y = kernel.linear(x, kernel.prepare(Lattice(one, torch.ones(1, 1).half(), None)))
    assert torch.equal(y, x.round())


def test_extreme_activations(kernel: Kernel) -> None:
    matrix = lattice(24, 256, 128)
    prepared = kernel.prepare(matrix)
    assert not kernel.linear(torch.zeros(1, 256), prepared).any()
    for size in (1e-30, 1e30):
        x = tokens(1, 256) * size
        close(kernel.linear(x, prepared), reference(x, matrix))
    for bad in (torch.nan, torch.inf):
        x = tokens(2, 256)
        x[0, 7] = bad
        y = kernel.linear(x, prepared)
        assert y[0].isnan().all(), "a broken token must not look like a result"
        assert y[1].isfinite().all()


def test_a_token_does_not_depend_on_its_batch_nor_on_threads(library: None) -> None:
    matrix, x, best = lattice(700, 512, 128), tokens(7, 512), NativeKernel()
    prepared, before = best.prepare(matrix), torch.get_num_threads()
    y = best.linear(x, prepared)
    try:
        torch.set_num_threads(2)
        assert torch.equal(best.linear(x, prepared), y)
        assert torch.equal(torch.cat([best.linear(row[None], prepared) for row in x]), y)
    finally:
        torch.set_num_threads(before)


def test_rounding_is_that_of_training() -> None:
    codes, step = rounded(x := tokens(9, 200))
    assert torch.equal(codes * step, quantise_activations(x))


def test_exact_activations_are_a_plain_linear_layer() -> None:
    matrix, x, bias = lattice(24, 300, 128), tokens(3, 300).bfloat16(), tokens(24).bfloat16()
    exact = ExactKernel("exact")
    expected = torch.nn.functional.linear(x, matrix.dequantise().bfloat16(), bias)
    assert torch.equal(exact.linear(x, exact.prepare(matrix), bias), expected)


def test_memory_is_two_bits_a_weight() -> None:
    prepared = pack(lattice(256, 1024, 128))
    assert prepared.memory_bytes == 256 * 1024 // 4 + 256 * 8 * 2


def test_gradients_are_refused_and_kernels_copied(library: None) -> None:
    best = copy.deepcopy(NativeKernel())
    prepared = best.prepare(lattice(4, 16, None))
    with pytest.raises(AssertionError, match="inference_mode"):
        best.linear(tokens(1, 16).requires_grad_(), prepared)


@pytest.mark.parametrize("shape", [(64, 512, 128), (100, 512, 256), (17, 64, None), (33, 300, 128)], ids=str)
def test_int4_stands_in(shape: tuple[int, int, int | None], caplog: pytest.LogCaptureFixture) -> None:
    matrix, x, bias = lattice(*shape), tokens(3, shape[1]), tokens(shape[0])
    stand_in = Int4Kernel()
    prepared = stand_in.prepare(matrix)
    assert ("run exact" in caplog.text) == (shape[1] == 300)
    close(stand_in.linear(x, prepared, bias), reference(x, matrix) + bias.double().numpy(), 2**-7)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch", [1, 3, 17])
def test_on_a_gpu(shape: tuple[int, int, int | None], batch: int) -> None:
    chosen = choose_kernel(CUDA)
    matrix, x = lattice(*shape), tokens(batch, shape[1])
    prepared = chosen.prepare(matrix).to(CUDA)
    close(chosen.linear(x.to(CUDA), prepared).cpu(), reference(x, matrix), 1e-5)
