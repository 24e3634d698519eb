"""Which kernel runs: said once, chosen by what is there, built once; and what is missing is a line that mends it."""

import logging
import platform
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from phases.bitnet.lattice import ternary
from phases.errors import MissingDependency
from phases.packed.kernels import build, choice, choose_kernel
from phases.packed.kernels.exact import ExactKernel

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that chose no kernel yet and has an empty cache of extensions."""
    monkeypatch.setattr(choice, "_chosen", choice.functools.cache(choice._chosen.__wrapped__))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    return tmp_path


def test_auto_says_once_what_runs(fresh: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "phases.packed")
    chosen = choose_kernel(CPU)
    assert choose_kernel(CPU) is chosen
    assert caplog.text.count("ternary matmul on cpu") == 1
    assert f"{chosen.name}, int8 activations" in caplog.text
    assert choose_kernel(CPU, activations="exact").name == "exact"


def test_without_a_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingDependency, match=r"no C\+\+ compiler named no-such-compiler; .*apt install g\+\+"):
        choose_kernel(CPU, "native")
    caplog.set_level(logging.INFO, "phases.packed")
    stand_in, matrix, x = choose_kernel(CPU), ternary(torch.randn(64, 256), 128), torch.randn(1, 256)
    assert stand_in.name == "int4"
    assert "cannot be built" in caplog.text
    assert "ternary matmul on cpu: int4" in caplog.text
    y, expected = (kernel.linear(x, kernel.prepare(matrix)) for kernel in (stand_in, ExactKernel("int8")))
    torch.testing.assert_close(y, expected, rtol=0, atol=2**-7 * float(expected.abs().max()))


def test_named_kernels_that_are_not_there(fresh: Path) -> None:
    with pytest.raises(MissingDependency, match="for processors"):
        choose_kernel(CUDA, "native")
    with pytest.raises(MissingDependency, match="rounds activations"):
        choose_kernel(CPU, "int4", "exact")
    with pytest.raises(MissingDependency, match=r"pip install triton|CUDA device"):
        choose_kernel(CPU, "triton")


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_builds_that_fail_say_so_in_a_line(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", script(fresh / "broken", "echo 'x.cpp:1: error: no' >&2; echo noise >&2; exit 1"))
    with pytest.raises(MissingDependency, match=r"cannot compile ternary.cpp \(x.cpp:1: error: no\)"):
        build.load()
    monkeypatch.setenv("CXX", script(fresh / "slow", "exec sleep 20"))
    monkeypatch.setattr(build, "LIMIT_SECONDS", 0.2)
    with pytest.raises(MissingDependency, match=r"took over 0.2 s"):
        build.load()
    build.library_path().write_bytes(b"not a library")
    with pytest.raises(MissingDependency, match="delete it"):
        build.load()


@pytest.mark.skipif(platform.system() != "Linux", reason="the flags are those of Linux")
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_two_may_build_at_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fresh / "small.cpp"
    source.write_text('extern "C" int seven() { return 7; }')
    monkeypatch.setattr(build, "SOURCE", source)
    with ThreadPoolExecutor(3) as pool:
        assert [library.seven() for library in pool.map(lambda _: build.load(), range(3))] == [7, 7, 7]
    assert [path.suffix for path in build.library_path().parent.iterdir()] == [".so"], "nothing half-made is left"
