"""The process in which a user's own tool runs; `phases.agent.own_tool` starts it and asks it.

    python -m phases.agent.own_tool_worker double.py
    {"number": 4}                                # a line of arguments comes in
    {"result": "8"}                              # a line goes out, after a first one with the file's schema

It says `{"schema": …, "sha256": …}` first, or `{"problem": …, "sha256": …}`, then for every line of arguments
`{"result": …}` or `{"error": …}`. What the file prints goes to standard error. It ends when its standard input closes,
even amid a call, so it does not outlive the process that asks.
"""

import contextlib
import hashlib
import inspect
import json
import os
import queue
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phases.agent.tool import ToolError

Answer = dict[str, Any]


def _load(path: Path) -> tuple[Answer, Callable[[Any], Any] | None]:
    """(the first line of a worker, the file's `run` as a function of the arguments alone)."""
    digest = ""
    try:
        source = path.read_bytes()
        digest = hashlib.sha256(source).hexdigest()
        module = types.ModuleType(f"own_tool_{digest[:12]}")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module
        exec(compile(source, str(path), "exec"), module.__dict__)
        run, schema = _arguments_only(getattr(module, "run", None)), getattr(module, "SCHEMA", None)
    except (Exception, SystemExit) as error:
        return {"problem": f"fails when it is imported ({_one_line(error)}); mend it", "sha256": digest}, None
    if run is None:
        return {"problem": "has no function `run(arguments, context)`; add one", "sha256": digest}, None
    if not isinstance(schema, dict):
        return {"problem": "has no SCHEMA (OpenAI's function format, a dict); add one", "sha256": digest}, None
    try:
        json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        return {"problem": f"its SCHEMA is not JSON ({error}); write one that is", "sha256": digest}, None
    return {"schema": schema, "sha256": digest}, run


def _arguments_only(run: Any) -> Callable[[Any], Any] | None:
    """A tool's function with its context, if it takes one, set to None; None for what takes neither."""
    if not callable(run):
        return None
    signature = inspect.signature(run)
    for given in ((None, None), (None,)):
        with contextlib.suppress(TypeError):
            signature.bind(*given)
            return lambda arguments: run(arguments, *given[1:])
    return None


def _answer(run: Callable[[Any], Any], line: str) -> Answer:
    """The result of a call, or the one line of its failure."""
    try:
        return {"result": str(run(json.loads(line)))}
    except ToolError as error:
        return {"error": " ".join(str(error).split())}
    except (Exception, SystemExit) as error:
        return {"error": _one_line(error)}


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _read_lines(descriptor: int, lines: "queue.Queue[str]") -> None:
    """Put what comes in into the queue; when nothing can come any more, end the process, whatever it is at."""
    with os.fdopen(descriptor, encoding="utf-8") as file:
        for line in file:
            lines.put(line)
    os._exit(0)


def work(path: Path) -> None:
    """A worker's life: say what the file is, then do calls. Returns at once for a file that is no tool."""
    asked, answers = os.dup(0), os.fdopen(os.dup(1), "w", encoding="utf-8")
    # The file may print and read as it likes: the pipes of the protocol are out of its reach.
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_lines, args=(asked, lines), daemon=True).start()
    first, run = _load(path)
    print(json.dumps(first), file=answers, flush=True)
    while run is not None:
        print(json.dumps(_answer(run, lines.get())), file=answers, flush=True)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
