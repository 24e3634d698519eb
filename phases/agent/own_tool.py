"""The user's own tool: a Python file that runs in a process of its own, so that it cannot hang or end the chat.

    tool = own_tool(Path("double.py"))           # reads its SCHEMA; nothing runs on afterwards
    tool.run({"number": 4}, ToolContext())       # "8": the worker starts with the first call and stays
    tool.close()                                 # ends it; a later call would start it again

The worker is `phases.agent.own_tool_worker`, which speaks JSON lines; what the file prints goes to standard error.
It ends when the process that asks does.

The file has a `SCHEMA` and `run(arguments, context)`, or `run(arguments)`. There is no context in another process:
`context` is None. It is no sandbox: the file does what its user may do.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phases.agent import own_tool_worker
from phases.agent.own_tool_worker import Answer
from phases.agent.tool import Tool, ToolContext, ToolError, check_schema
from phases.errors import ConfigError

CALL_SECONDS = 20.0
"""A call that takes longer is ended, and the worker with it."""
START_SECONDS = 60.0
"""The same for the import of the file, which may load large packages."""


class _Slow(Exception):
    """The worker did not answer in time."""


class _Gone(Exception):
    """The worker ended, or answered what is no answer."""


class OwnToolRunner:
    """Calls a file's `run` in a worker process, which is started when it is not there."""

    def __init__(self, path: Path, call_seconds: float = CALL_SECONDS, start_seconds: float = START_SECONDS) -> None:
        self.path, self.call_seconds, self.start_seconds = path, call_seconds, start_seconds
        self.name, self.digest = path.stem, ""
        self._worker: subprocess.Popen[bytes] | None = None
        # Chats that are served from several threads share the pipe.
        self._lock = threading.Lock()

    def __call__(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """What the tool returns. Raises `ToolError` for what it raises, for one that is too slow, or one that died."""
        with self._lock:
            self._begin()
            try:
                answer = self._ask(json.dumps(dict(arguments)), self.call_seconds)
            except _Slow:
                raise ToolError(f"{self.name}: timed out after {self.call_seconds:g} s") from None
            except _Gone:
                raise ToolError(f"{self.name}: the tool's process ended; try another way") from None
        if "result" not in answer:
            raise ToolError(str(answer.get("error", "no result")))
        return str(answer["result"])

    def read(self) -> Mapping[str, Any]:
        """The file's schema; no process stays. Raises `ConfigError` that says what the file lacks."""
        with self._lock:
            try:
                first = self._start()
            except _Slow:
                raise ConfigError(
                    f"tool {self.path}: its import takes longer than {self.start_seconds:g} s; make it quicker"
                ) from None
            except _Gone:
                raise ConfigError(f"tool {self.path}: ends its process when it is imported; mend it") from None
            finally:
                self._stop()
        if "problem" in first:
            raise ConfigError(f"tool {self.path}: {first['problem']}")
        self.name, self.digest = check_schema(first["schema"], str(self.path)), str(first["sha256"])
        found: Mapping[str, Any] = first["schema"]
        return found

    def close(self) -> None:
        """End the worker, if there is one."""
        with self._lock:
            self._stop()

    def _begin(self) -> None:
        """A worker that is ready. Raises `ToolError` when the file no longer starts, or is another one by now."""
        if self._worker is not None and self._worker.poll() is None:
            return
        try:
            first = self._start()
        except (_Slow, _Gone):
            raise ToolError(f"{self.name}: the tool's process does not start") from None
        if first.get("sha256") != self.digest:
            self._stop()
            raise ToolError(f"{self.name}: the tool's file was changed; start again to use it")
        if "problem" in first:
            self._stop()
            raise ToolError(f"{self.name}: {first['problem']}")

    def _start(self) -> Answer:
        """Start a worker; the first thing that it says."""
        self._stop()
        self._worker = subprocess.Popen(
            [sys.executable, "-m", own_tool_worker.__name__, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # what it starts ends with it, and Ctrl-C is the chat's
        )
        return self._ask(None, self.start_seconds)

    def _ask(self, line: str | None, seconds: float) -> Answer:
        """Write a line, read one. Raises `_Slow` or `_Gone`, and the worker is ended."""
        assert self._worker is not None
        answers: queue.Queue[bytes] = queue.Queue()
        # Writing can block as reading can, so both happen in a thread that may be given up.
        asking = threading.Thread(target=_exchange, args=(self._worker, line, answers), daemon=True)
        asking.start()
        try:
            answer = json.loads(answers.get(timeout=seconds))
            if not isinstance(answer, dict):
                raise ValueError("an answer is an object")
        except queue.Empty:
            self._stop(asking)
            raise _Slow from None
        except ValueError:
            self._stop(asking)
            raise _Gone from None
        except BaseException:  # Ctrl-C: the late answer must not be taken for that of the next call
            self._stop(asking)
            raise
        return answer

    def _stop(self, asking: threading.Thread | None = None) -> None:
        """End the worker and all it started."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        if asking is not None:
            asking.join(1)
        for file in (worker.stdin, worker.stdout):
            # A thread that still reads (a grandchild holds the pipe) has the file's lock; closing would wait for it.
            if file is not None and (asking is None or not asking.is_alive()):
                with contextlib.suppress(OSError):
                    file.close()


def _exchange(worker: "subprocess.Popen[bytes]", line: str | None, answers: "queue.Queue[bytes]") -> None:
    """Write a line to the worker and put what it answers into the queue: nothing when it has ended."""
    assert worker.stdin is not None and worker.stdout is not None
    try:
        if line is not None:
            worker.stdin.write(line.encode() + b"\n")
            worker.stdin.flush()
        answers.put(worker.stdout.readline())
    except (OSError, ValueError):
        answers.put(b"")


def own_tool(path: Path, call_seconds: float = CALL_SECONDS, start_seconds: float = START_SECONDS) -> Tool:
    """The tool in the user's own file, which is run as Python. Raises `ConfigError` that says what the file lacks."""
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(f"tool {path}: cannot be read ({error.strerror}); give a Python file") from None
    if path.suffix != ".py":
        raise ConfigError(f"tool {path}: not a Python file; give one that ends in .py")
    runner = OwnToolRunner(path, call_seconds, start_seconds)
    schema = runner.read()
    return Tool(runner.name, schema, runner, str(path), runner.digest, runner.close)
