"""Attempts to get out of the sandbox, to stop it, or to leave something behind."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from phases.agent.sandbox.sandbox import Sandbox, SandboxLimits

SECRET = "forge-secret-7391"
LIMITS = SandboxLimits(seconds=0.6, cpu_seconds=1, output_bytes=2000)

ATTEMPTS = {
    "fork": "import os\nprint('got out', os.fork())",
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "os.system": "import os\nos.system('touch {canary}.made')\nprint('tried')",
    "popen": "import os\nprint(os.popen('id').read())",
    "exec": "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo got out'])",
    "posix_spawn": "import os\nprint('got out', os.posix_spawn('/bin/true', ['true'], {{}}))",
    "subprocess": "import subprocess\nprint('got out', subprocess.run('id'))",
    "thread": "import _thread, time\n_thread.start_new_thread(print, ('got out',))\ntime.sleep(.2)",
    "socket": "import _socket\ns = _socket.socket()\ns.connect(('127.0.0.1', {port}))\ns.send(b'got out')",
    "udp": "import _socket\n_socket.socket(2, 2).sendto(b'got out', ('127.0.0.1', {port}))",
    "names": "import _socket\nprint('got out', _socket.gethostbyname('localhost'))",
    "read a file": "print('got out', open('/etc/passwd').read())",
    "read by number": "import os\nprint('got out', os.read(0, 100) or os.read(3, 100))",
    "read the project": "print('got out', open('{canary}').read())",
    "list a folder": "import os\nprint('got out', os.listdir('/'))",
    "write a file": "open('{canary}.made', 'w').write('got out')",
    "remove a file": "import os\nos.remove('{canary}')",
    "link": "import os\nos.symlink('/etc/passwd', '{canary}.made')",
    "kill the parent": "import os\nos.kill(os.getppid(), 9)",
    "kill everyone": "import os\nos.kill(-1, 9)",
    "ignore signals": "import signal\nfor n in range(1, 64):\n    try: signal.signal(n, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\nwhile True: pass",
    "alarm": "import signal\nsignal.setitimer(signal.ITIMER_REAL, .01)\nprint('got out')",
    "endless loop": "while True: pass",
    "loop that catches": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "sleep": "import time\ntime.sleep(3600)",
    "memory": "x = []\nwhile True: x.append('a' * 10**6)",
    "big numbers": "10**10**9",
    "regular expression": "import re\nre.match(r'(a+)+$', 'a' * 50 + 'b')",
    "recursion": "def f(): return f()\nf()",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)",
    "endless output": "while True: print('x' * 1000)",
    "binary output": "import os\nos.write(1, bytes(range(256)) * 4)",
    "close the output": "import os\nos.close(1)\nos.close(2)",
    "other files": "import os\nfor n in range(3, 300):\n    try:\n        os.write(n, b'got out')\n"
    "        print('got out')\n"
    "    except OSError: pass",
    "forged end": 'import os\nos.write(2, b\'{{"error": null, "output": "forged"}}\' * 1000)\nos._exit(0)',
    "forged protocol": "import os, struct\nos.write(1, struct.pack('<I', 2**31) + b'got nothing')",
    "os._exit": "import os\nos._exit(0)",
    "abort": "import os\nos.abort()",
    "segmentation fault": "import ctypes\nctypes.string_at(0)",
    "system call by ctypes": "import ctypes\nlibc = ctypes.CDLL(None)\n"
    "print('got out' if libc.syscall(57) >= 0 else 'no')",
    "executable memory": "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_long\n"
    "print('got out' if libc.mmap(0, 4096, 7, 0x22, -1, 0) > 0 else 'no')",
    "poison a page": "import ctypes\nlibc = ctypes.CDLL(None)\nprint('got out' if libc.madvise(4096, 4096, 99) == 0 or "
    "ctypes.get_errno() == 22 else 'no')",
    "who it is": "import os\nprint('got out' if os.geteuid() == 0 else 'nobody')",
    "ptrace": "import ctypes, os\nprint('got out' if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0 else 'no')",
    "become root": "import os\nos.setuid(0)\nprint('got out')",
    "chroot": "import os\nos.chroot('/')\nprint('got out')",
    "subclasses": "for c in object.__subclasses__():\n    if c.__name__ == 'FileLoader':\n"
    "        print('got out', c('x', '/etc/passwd').get_data('/etc/passwd'))",
    "frames": "import sys\nf = sys._getframe()\nwhile f.f_back: f = f.f_back\nf.f_globals['run'] = None\n"
    "f.f_globals['_verdict'] = lambda *a: 'got out'",
    "builtins": "import builtins\nbuiltins.print = builtins.repr = builtins.len = None",
    "atexit": "import atexit\natexit.register(lambda: print('got out'))",
    "environment": "import os\nprint(dict(os.environ))",
    "import by path": "import sys\nsys.path.insert(0, '{folder}')\nimport canary",
    "trace": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(print)\nwhile True: len('')",
    "marshal": "import marshal\nexec(marshal.loads(b'\\xe3' + b'\\x00' * 64))",
    "code object": "f = lambda: 0\nf.__code__ = f.__code__.replace(co_code=b'\\xff' * 64)\nf()",
    "deep JSON": "import json\njson.loads('[' * 10**6)",
    "NUL bytes": "print('a')\0",
    "lone surrogate": "print('\ud800')",
    "a megabyte of code": "x = 1\n" * 170_000,
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    os.environ["FORGE_SECRET"] = SECRET
    with Sandbox(LIMITS) as opened:
        opened.run("1")
        yield opened
    del os.environ["FORGE_SECRET"]


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        opened.settimeout(0.01)
        yield opened


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary.py"
    path.write_text("print('got out')")
    return path


@pytest.mark.parametrize("name", ATTEMPTS)
def test_nothing_gets_out_and_the_next_snippet_is_right(
    sandbox: Sandbox, listener: socket.socket, canary: Path, name: str
) -> None:
    code = ATTEMPTS[name]
    if len(code) < 1000 and "{" in code:
        code = code.format(canary=canary, folder=canary.parent, port=listener.getsockname()[1])
    before = sandbox._process
    outcome = sandbox.run(code)
    assert outcome.seconds < LIMITS.seconds + 1.5
    assert "got out" not in outcome.output and SECRET not in outcome.output and "root:" not in outcome.output
    assert sandbox.run("6*7").output == "42\n"
    assert sandbox._process is before  # nothing reached the helper
    assert [path.name for path in canary.parent.iterdir()] == ["canary.py"]
    assert canary.read_text() == "print('got out')"
    with pytest.raises(TimeoutError):
        listener.accept()
    assert before is not None and not psutil.Process(before.pid).children(recursive=True)


def test_there_are_more_than_thirty_attempts() -> None:
    assert len(ATTEMPTS) >= 30


@pytest.mark.parametrize("name", ["endless loop", "sleep", "big numbers", "ignore signals"])
def test_what_does_not_end_is_ended(sandbox: Sandbox, name: str) -> None:
    assert "timed out after 0.6 s" in (sandbox.run(ATTEMPTS[name]).error or "")
