"""Somebody's Python, run where it can do no harm.

    with Sandbox() as sandbox:
        sandbox.run("sum(range(10))").output        # "45"

A helper process forks a child for every snippet (`runner`), and the child gives up files, network, processes and most
of the kernel before it runs (`seccomp`). Linux on x86_64 and aarch64; elsewhere nothing is run at all. A snippet costs
some milliseconds, and whatever it does, the next one finds everything as it was.
"""

import json
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import Field

from phases.errors import MissingDependency
from phases.strict import StrictModel

GRACE = 10.0
"""Seconds beyond a snippet's own in which the helper has to answer: it may be starting on a busy machine."""


class SandboxLimits(StrictModel):
    """What a snippet may use."""

    seconds: float = Field(2.0, gt=0)
    """Time on the clock."""
    cpu_seconds: int = Field(3, ge=1)
    """Time of the processor. More than `seconds`: as much, and chance decides which of the two an endless loop meets,
    and with it what the model reads."""
    memory_bytes: int = Field(256 * 2**20, ge=32 * 2**20)
    """Address space, the interpreter's own included."""
    output_bytes: int = Field(8192, ge=64)
    """Bytes that it may print; then it is ended."""


@dataclass(frozen=True)
class Outcome:
    """What became of a snippet."""

    output: str
    error: str | None
    """Why it failed; None when it ran to its end, or was ended for printing too much."""
    seconds: float


class Sandbox:
    """The helper process, started when it is first needed."""

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self.limits = limits or SandboxLimits()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, code: str) -> Outcome:
        """Run one snippet. Raises `MissingDependency` where it could not be locked in."""
        # What is no Unicode text (lone surrogates) cannot be a program either.
        request = {"code": code.encode("utf-8", "replace").decode()}
        try:
            answer = self._ask(request)
        except (OSError, ValueError):  # the helper is gone or answers nonsense: a new one takes its place, once
            self._stop()
            try:
                answer = self._ask(request)
            except (OSError, ValueError):
                self._stop()
                return Outcome("", "the sandbox did not answer", 0.0)
        if "refused" in answer:
            raise MissingDependency(
                f"the code sandbox needs Linux on x86_64 or aarch64 ({answer['refused']}); run it there"
            )
        return Outcome(str(answer["output"]), answer["error"], float(answer["seconds"]))

    def run_many(self, codes: Sequence[str]) -> list[Outcome]:
        """One after the other, each as if it were alone."""
        return [self.run(code) for code in codes]

    def close(self) -> None:
        """End the helper."""
        self._stop()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._start()
        assert process.stdin is not None and process.stdout is not None
        body = json.dumps(request).encode()
        process.stdin.write(struct.pack("<I", len(body)) + body)
        process.stdin.flush()
        until = time.monotonic() + self.limits.seconds + GRACE
        size = struct.unpack("<I", _exactly(process.stdout, 4, until))[0]
        answer: dict[str, Any] = json.loads(_exactly(process.stdout, size, until))
        return answer

    def _start(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        self._folder = tempfile.TemporaryDirectory(prefix="forge-sandbox-")
        limits = json.dumps(self.limits.model_dump())
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-S", str(Path(__file__).with_name("runner.py")), limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env={"LANG": "C.UTF-8", "TZ": "UTC0", "PYTHONHASHSEED": "0"},  # the same output every time
            start_new_session=True,
        )
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # its child dies with it
            for file in (self._process.stdin, self._process.stdout):
                _shut(file)
            self._process.wait()
        if self._folder is not None:
            self._folder.cleanup()
        self._process = self._folder = None


def _exactly(file: IO[bytes], count: int, until: float) -> bytes:
    """So many bytes. Raises `OSError` when they do not come in time, or the other side is gone."""
    parts = b""
    while len(parts) < count:
        if not select.select([file], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError("no answer")
        part = os.read(file.fileno(), count - len(parts))
        if not part:
            raise BrokenPipeError("gone")
        parts += part
    return parts


def _shut(file: "IO[bytes] | None") -> None:
    try:
        if file is not None:
            file.close()
    except OSError:
        pass
