"""One token through ternary layers: our kernel against torch's float32 `F.linear` and against llama.cpp's TQ2_0.

A job goes through as many layers as fill 128 MiB in float32, as decoding does, so that no way finds its weights in the
cache of a core: float32 comes from memory; packed weights (8 MiB) come from the shared cache wherever it holds them,
as they would in a small model. The row "one layer" is the opposite case: one 1024×1024 layer over and over.

llama.cpp runs the same lattice (groups of 256) as one graph of all layers through its own `ggml_graph_compute`, so
that nothing of Python is in its time; ours calls Python for every layer. Both get one thread: its barrier after every
layer takes milliseconds on a busy machine, ours has none in small layers, and the ratio would measure that.
"""

import ctypes
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

from phases.bitnet.lattice import Lattice, ternary
from phases.packed.kernels import choose_kernel
from tests.benchmarks.pairs import Comparison, compare

SHAPES = ((1024, 1024), (2048, 2048), (4096, 4096), (1024, 4096))
FLOAT32_BYTES = 128 * 2**20
LAYERS_A_JOB = 64
TARGET = 2.0
F32, TQ2_0 = 0, 35
"""`enum ggml_type`."""


class InitParams(ctypes.Structure):
    """`struct ggml_init_params`."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class Plan(ctypes.Structure):
    """`struct ggml_cplan`."""

    _fields_ = (
        ("work_size", ctypes.c_size_t),
        ("work_data", ctypes.c_void_p),
        ("n_threads", ctypes.c_int),
        ("threadpool", ctypes.c_void_p),
        ("abort_callback", ctypes.c_void_p),
        ("abort_callback_data", ctypes.c_void_p),
        ("use_ref", ctypes.c_bool),
    )


class Ggml:
    """The few functions of llama.cpp's tensor library that a matrix product needs."""

    def __init__(self, folder: Path) -> None:
        base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        self.cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"))
        self.cpu.ggml_cpu_init()
        self.base: Any = base
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        for name, result, arguments in (
            ("ggml_init", pointer, [InitParams]),
            ("ggml_new_tensor_2d", pointer, [pointer, ctypes.c_int, size, size]),
            ("ggml_get_data", pointer, [pointer]),
            ("ggml_quantize_chunk", ctypes.c_size_t, [ctypes.c_int, pointer, pointer, size, size, size, pointer]),
            ("ggml_mul_mat", pointer, [pointer, pointer, pointer]),
            ("ggml_new_graph", pointer, [pointer]),
            ("ggml_build_forward_expand", None, [pointer, pointer]),
        ):
            getattr(base, name).restype, getattr(base, name).argtypes = result, arguments
        self.cpu.ggml_graph_plan.restype = Plan
        self.cpu.ggml_graph_plan.argtypes = [pointer, ctypes.c_int, pointer]
        self.cpu.ggml_graph_compute.argtypes = [pointer, ctypes.POINTER(Plan)]

    def job(self, weights: list[torch.Tensor], x: torch.Tensor) -> tuple[Callable[[], object], torch.Tensor]:
        """A graph of x times every matrix in TQ2_0, and where the product with the first one will stand."""
        base, (rows, columns) = self.base, weights[0].shape
        context = base.ggml_init(InitParams(sum(w.numel() for w in weights) * 3 // 8 + 2**24, None, False))
        token = base.ggml_new_tensor_2d(context, F32, columns, 1)
        ctypes.memmove(base.ggml_get_data(token), x.data_ptr(), x.nbytes)
        graph, products = base.ggml_new_graph(context), []
        for weight in weights:
            matrix = base.ggml_new_tensor_2d(context, TQ2_0, columns, rows)
            base.ggml_quantize_chunk(TQ2_0, weight.data_ptr(), base.ggml_get_data(matrix), 0, rows, columns, None)
            products.append(base.ggml_mul_mat(context, matrix, token))
            base.ggml_build_forward_expand(graph, products[-1])
        plan = self.cpu.ggml_graph_plan(graph, torch.get_num_threads(), None)
        work = ctypes.create_string_buffer(plan.work_size + 64)
        plan.work_data = ctypes.addressof(work)
        first = (ctypes.c_float * rows).from_address(base.ggml_get_data(products[0]))

        def compute(keep: object = work) -> None:
            assert self.cpu.ggml_graph_compute(graph, ctypes.byref(plan)) == 0

        return compute, torch.frombuffer(first, dtype=torch.float32)


def ggml() -> Ggml | None:
    """llama.cpp's libraries where `llama_cpp` is installed."""
    found = importlib.util.find_spec("llama_cpp")
    return Ggml(Path(found.origin).parent / "lib") if found and found.origin else None


def lattices(rows: int, columns: int, group: int) -> list[Lattice]:
    """Distinct layers that take 128 MiB in float32."""
    count = max(2, FLOAT32_BYTES // (4 * rows * columns))
    generator = torch.Generator().manual_seed(0)
    return [ternary(torch.randn(rows, columns, generator=generator), group) for _ in range(count)]


@torch.inference_mode()
def run(pairs: int) -> list[Comparison]:
    """Rows of every shape; those against llama.cpp where it is installed."""
    rows, other = [], ggml()
    if other is None:
        print("ternary matmul against llama.cpp TQ2_0: not measured: make llama")
    for shape in SHAPES:
        rows.append(against_float32(f"ternary {shape[0]}×{shape[1]}", lattices(*shape, 128), pairs))
        if other is not None:
            rows.append(against_llama(f"ternary {shape[0]}×{shape[1]}, TQ2_0", lattices(*shape, 256), other, pairs))
    rows.append(against_float32("ternary 1024×1024, one layer", lattices(1024, 1024, 128)[:1], pairs))
    return rows


def against_float32(name: str, layers: list[Lattice], pairs: int) -> Comparison:
    """Groups of 128."""
    ours, x, count = _ours(layers)
    weights = [layer.dequantise() for layer in layers]
    repeats = count // len(layers)

    def floats() -> None:
        for _ in range(repeats):
            for weight in weights:
                linear(x, weight)

    return compare(name, "layers/s", count, ours, "torch float32", floats, target=TARGET, pairs=pairs)


def against_llama(name: str, layers: list[Lattice], other: Ggml, pairs: int) -> Comparison:
    """Groups of 256, which are TQ2_0's; one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _against_llama(name, layers, other, pairs)
    finally:
        torch.set_num_threads(threads)


def _against_llama(name: str, layers: list[Lattice], other: Ggml, pairs: int) -> Comparison:
    ours, x, count = _ours(layers)
    compute, product = other.job([layer.dequantise() for layer in layers], x)
    repeats = count // len(layers)
    compute()
    expected = linear(x, layers[0].dequantise())[0]
    assert (product - expected).norm() < 0.02 * expected.norm(), "llama.cpp computed something else"

    def theirs() -> None:
        for _ in range(repeats):
            compute()

    return compare(name, "layers/s", count, ours, "llama.cpp TQ2_0", theirs, target=1.0, pairs=pairs)


def _ours(layers: list[Lattice]) -> tuple[Callable[[], None], torch.Tensor, int]:
    """A job, its token, and how many layers it goes through."""
    kernel = choose_kernel(torch.device("cpu"))
    prepared = [kernel.prepare(layer) for layer in layers]
    x = torch.randn(1, layers[0].codes_OI.shape[1], generator=torch.Generator().manual_seed(1))
    repeats = max(1, LAYERS_A_JOB // len(layers))

    def job() -> None:
        for _ in range(repeats):
            for matrix in prepared:
                kernel.linear(x, matrix)

    return job, x, repeats * len(layers)
