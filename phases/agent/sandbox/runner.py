"""The process that the sandbox starts: it loads harmless modules once, and forks a locked-in child for each snippet.

    python -P -s -S runner.py '{"seconds": 2, …}'      requests come on standard input, answers go to standard output

A request and an answer are four bytes of length and that much JSON. Nothing of a snippet is trusted: the child has two
pipes, one for what it prints and one for how it ended; both are read here, up to a limit, and nobody else's are within
its reach. It imports the standard library alone.
"""

import builtins
import contextlib
import importlib
import io
import json
import math
import os
import resource
import select
import signal
import struct
import sys
import time
from typing import IO, Any

HERE = os.path.dirname(os.path.abspath(__file__))
_PRELOADED = """
math cmath statistics fractions decimal numbers random itertools functools operator collections collections.abc heapq
bisect string re json datetime _strptime calendar textwrap unicodedata copy enum dataclasses typing time array hashlib
base64 struct binascii zlib difflib pprint ast abc contextlib graphlib secrets types keyword locale traceback linecache
tokenize encodings.utf_8 encodings.ascii encodings.latin_1 encodings.idna
"""
PRELOADED = tuple(_PRELOADED.split())
"""What a snippet may import: everything else would have to be read from a disk that it does not have."""
NOBODY = 65_534
"""Who a snippet is where the helper is root."""
ENDING = 4096
"""Bytes that a snippet's ending may have."""


def main() -> None:
    """Answer requests until there are none."""
    limits = json.loads(sys.argv[1])
    sys.path.insert(0, HERE)
    seccomp = importlib.import_module("seccomp")
    sys.path.remove(HERE)
    reason = seccomp.supported()
    lock = None if reason else seccomp.Lock()
    if lock is not None and not _holds(lock):
        reason, lock = "the kernel takes no filter", None
    for name in PRELOADED:
        importlib.import_module(name)
    "".encode("idna")
    sys.set_int_max_str_digits(10_000)
    while (request := _read(sys.stdin.buffer)) is not None:
        answer = {"refused": reason} if lock is None else run(request["code"], limits, lock)
        _write(sys.stdout.buffer, answer)


def _holds(lock: Any) -> bool:
    """Whether a child can be locked in here."""
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.close() else 71)
    return os.waitpid(child, 0)[1] == 0


def run(code: str, limits: dict[str, Any], lock: Any) -> dict[str, Any]:
    """One snippet in a child of its own."""
    printed, ending = os.pipe(), os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            _locked_in(code, limits, lock, printed[1], ending[1])
        finally:
            os._exit(70)
    os.close(printed[1])
    os.close(ending[1])
    try:
        output, said, late = _collect(printed[0], ending[0], limits, began)
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(printed[0])
        os.close(ending[0])
    _, status = os.waitpid(child, 0)
    text = output.decode("utf-8", "replace")
    cut = len(output) >= limits["output_bytes"]
    if cut:
        text += f" … (output cut at {limits['output_bytes']:,} bytes)"
    return {
        "output": text,
        "error": None if cut else _verdict(said, status, late, limits),
        "seconds": time.monotonic() - began,
    }


def _collect(printed: int, ending: int, limits: dict[str, Any], began: float) -> tuple[bytes, bytes, bool]:
    """(what was printed, how it says that it ended, whether its time ran out)."""
    output, said = b"", b""
    open_files = {printed, ending}
    while open_files:
        left = began + limits["seconds"] - time.monotonic()
        ready = select.select(list(open_files), [], [], max(0.0, left))[0]
        if not ready:
            return output, said, True
        for file in ready:
            part = os.read(file, 65_536)
            if not part:
                open_files.discard(file)
            elif file == printed:
                output = (output + part)[: limits["output_bytes"]]
                if len(output) >= limits["output_bytes"]:
                    return output, said, False
            else:
                said = (said + part)[:ENDING]
    return output, said, False


def _verdict(said: bytes, status: int, late: bool, limits: dict[str, Any]) -> Any:
    """Why the snippet failed, or None; its own word counts for an exception only."""
    if late:
        return f"timed out after {limits['seconds']:g} s"
    if said:
        try:
            return json.loads(said)["error"]
        except (ValueError, KeyError, TypeError):
            return "ended without a word"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return "used up its processor time"
        return f"killed by signal {number}"
    return "ended without a word"


def _locked_in(code: str, limits: dict[str, Any], lock: Any, printed: int, ending: int) -> None:
    """In the child: give up everything, then run the snippet."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    lock.die_with_parent()  # after that: a change of user would clear it
    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(ending, 250)
    os.dup2(printed, 1)
    os.dup2(250, 2)
    os.closerange(3, 4096)
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
            signal.signal(number, signal.SIG_DFL)
    _limit(resource.RLIMIT_CPU, limits["cpu_seconds"])
    _limit(resource.RLIMIT_AS, limits["memory_bytes"])
    for which in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        _limit(which, 0)
    sys.stdin = io.StringIO("")
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", "replace", write_through=True)
    sys.stderr = sys.stdout
    sys.argv = ["snippet"]
    os.environ.clear()
    if not lock.close():
        os._exit(71)
    error = _execute(code)
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    os.write(2, json.dumps({"error": error}).encode())
    os._exit(0)


def _limit(which: int, value: int) -> None:
    resource.setrlimit(which, (value, value))


def _execute(code: str) -> str | None:
    """Run like a cell of a notebook: the value of a last expression is printed; the exception's line, or None."""
    import ast

    # `math` is at hand: a sum should not need an import.
    scope: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins, "math": math}
    try:
        tree = ast.parse(code, "<code>")
        last = tree.body[-1] if tree.body else None
        tree.body = tree.body[:-1] if isinstance(last, ast.Expr) else tree.body
        exec(compile(tree, "<code>", "exec"), scope)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<code>", "eval"), scope)
            if value is not None:
                print(repr(value))
    except SystemExit as error:
        return str(error.code)[:300] if isinstance(error.code, str) else None
    except MemoryError:
        return "out of memory"
    except BaseException as error:
        return _one_line(error)
    return None


def _one_line(error: BaseException) -> str:
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<code>":
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    except BaseException:
        text = type(error).__name__
    if isinstance(error, ModuleNotFoundError | PermissionError):
        text += " (not available here)"
    return text + (f" (line {line})" if line else "")


def _read(file: IO[bytes]) -> Any:
    head = file.read(4)
    if len(head) < 4:
        return None
    return json.loads(file.read(struct.unpack("<I", head)[0]))


def _write(file: IO[bytes], value: Any) -> None:
    body = json.dumps(value).encode()
    file.write(struct.pack("<I", len(body)) + body)
    file.flush()


if __name__ == "__main__":
    main()
