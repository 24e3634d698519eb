"""Compiling `ternary.cpp`, which includes `rows.cpp`, on first use, into torch's cache of extensions.

Not `torch.utils.cpp_extension.load`: a source that includes torch's headers takes 35 s of a processor (measured; this
one 3), and its lock file makes everybody wait for ever once a build was killed. Here a build goes to a file of its
own and is renamed, so processes that build at the same time cannot disturb each other; the name is the hash of source
and flags, so a library that is there is right, and a later run needs no compiler. Instructions beyond the baseline
are chosen when it runs: the library serves every processor of its architecture that shares a home directory.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import subprocess
import tempfile
from pathlib import Path

from torch.utils import cpp_extension

from phases.errors import MissingDependency
from phases.storage import fsync_path

SOURCE = Path(__file__).with_name("ternary.cpp")
# libgomp.so.1 is also what torch brings and has loaded by then: one pool of threads for both.
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fopenmp")
LIMIT_SECONDS = 120
MEND = "install a C++ compiler (`apt install g++`) or set CXX to one"

log = logging.getLogger("phases.packed")


def load() -> ctypes.CDLL:
    """The compiled library, built first if it is not there. Raises `MissingDependency` with one line."""
    path = library_path()
    if not path.is_file():
        _build(path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise MissingDependency(f"{path} cannot be loaded ({error}); delete it, then {MEND}") from None


def library_path() -> Path:
    """Where the library of these sources and flags belongs."""
    sources = b"".join(path.read_bytes() for path in sorted(SOURCE.parent.glob("*.cpp")))
    key = hashlib.sha256(sources + " ".join((*FLAGS, platform.machine(), platform.system())).encode())
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    return Path(root) / "agent_forge" / f"ternary-{key.hexdigest()[:16]}.so"


def _build(path: Path) -> None:
    compiler = os.environ.get("CXX") or "c++"
    log.info("building the ternary kernel once, into %s", path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            command = [*shlex.split(compiler), *FLAGS, str(SOURCE), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
            if done.returncode:
                raise MissingDependency(f"{compiler} cannot compile {SOURCE.name} ({_reason(done.stderr)}); {MEND}")
            fsync_path(Path(made))  # else a power cut could leave half a library under the final name
            os.replace(made, path)
    except FileNotFoundError:
        raise MissingDependency(f"no C++ compiler named {compiler}; {MEND}") from None
    except subprocess.TimeoutExpired:
        raise MissingDependency(f"{compiler} took over {LIMIT_SECONDS} s for {SOURCE.name}; {MEND}") from None
    except OSError as error:
        raise MissingDependency(f"{path.parent} cannot be used ({error.strerror}); set TORCH_EXTENSIONS_DIR") from None


def _reason(stderr: str) -> str:
    """The line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[-1] if lines else "no message")[:200]
