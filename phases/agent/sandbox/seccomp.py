"""A filter of system calls: what a process may still ask of the kernel once it has been locked in.

    lock()      # from here on: memory, clocks, random numbers, and writing to two open files; all else is refused

Linux's seccomp (mode 2) runs a small program, in the form of the Berkeley packet filter, on every system call, for this
process and for ever. The list is of what is allowed: there is no file system, no network, no process but this one. It
needs no rights, no namespaces and no library. The standard library alone is imported here, as the sandboxed process
has nothing else.
"""

import ctypes
import platform
import struct
import sys

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in the kernel's `struct seccomp_data`; an argument has 8 bytes, its lower half first."""
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
"""Go on; fail with EPERM; end the process."""
_X32 = 0x40000000
_PROT_EXEC = 4
_ADVICE = (4, 8)
"""Memory that is not needed any more; other advice could take pages from the whole machine."""
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2

_ALLOWED = (
    *("brk", "mmap", "munmap", "mremap", "mprotect", "futex", "getrandom"),
    *("clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
    *("getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "sched_yield", "exit", "exit_group"),
)
_WITHOUT_EXECUTABLE = ("mmap", "mprotect")
"""Of these the third argument may not ask for memory that can be executed."""

NUMBERS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            **{
                "write": 1,
                "mmap": 9,
                "mprotect": 10,
                "munmap": 11,
                "brk": 12,
                "rt_sigaction": 13,
                "rt_sigprocmask": 14,
            },
            **{"rt_sigreturn": 15, "writev": 20, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35},
            **{"getpid": 39, "exit": 60, "gettimeofday": 96, "getuid": 102, "getgid": 104, "geteuid": 107},
            **{"getegid": 108, "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "restart_syscall": 219},
            **{"clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "getrandom": 318},
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            **{"write": 64, "exit": 93, "exit_group": 94, "futex": 98, "nanosleep": 101, "clock_gettime": 113},
            **{"clock_getres": 114, "clock_nanosleep": 115, "sched_yield": 124, "restart_syscall": 128},
            **{"sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139},
            **{"gettimeofday": 169, "getpid": 172, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177},
            **{"gettid": 178, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233},
            **{"getrandom": 278},
        },
    ),
}
"""(audit number of the processor, its system calls), from the kernel's own tables."""


def supported() -> str:
    """Why there is no filter here; empty when there is one."""
    if not sys.platform.startswith("linux"):
        return f"{sys.platform} has no seccomp"
    return "" if platform.machine() in NUMBERS else f"no filter for {platform.machine()}"


def program(machine: str, outputs: tuple[int, ...] = (1, 2)) -> bytes:
    """The filter: `outputs` are the open files that may be written to."""
    audit, numbers = NUMBERS[machine]
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, audit, 1, 0),
        _step(_RETURN, _KILL),  # the same number is another call on another processor
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, _KILL),
    ]
    for name in _ALLOWED:
        if name in numbers and name not in _WITHOUT_EXECUTABLE:
            code += [_step(_EQUAL, numbers[name], 0, 1), _step(_RETURN, _ALLOW)]
    for name in _WITHOUT_EXECUTABLE:
        inner = [
            _step(_LOAD, _ARGUMENTS + 2 * 8),
            _step(_AND, _PROT_EXEC),
            _step(_EQUAL, 0, 0, 1),
            _step(_RETURN, _ALLOW),
            _step(_RETURN, _REFUSE),
        ]
        code += [_step(_EQUAL, numbers[name], 0, len(inner)), *inner]
    for name, argument, values in (("madvise", 2, _ADVICE), ("write", 0, outputs)):
        inner = [_step(_LOAD, _ARGUMENTS + argument * 8)]
        for value in values:
            inner += [_step(_EQUAL, value, 0, 1), _step(_RETURN, _ALLOW)]
        inner.append(_step(_RETURN, _REFUSE))
        code += [_step(_EQUAL, numbers[name], 0, len(inner)), *inner]
    return b"".join([*code, _step(_RETURN, _REFUSE)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction of the filter: (code, jumps, value)."""
    return struct.pack("<HBBI", code, if_true, if_false, value)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


class Lock:
    """The filter, prepared: locking in must not have to import or look up anything."""

    def __init__(self, outputs: tuple[int, ...] = (1, 2)) -> None:
        made = program(platform.machine(), outputs)
        self.buffer = ctypes.create_string_buffer(made, len(made))
        self.program = _Program(len(made) // 8, ctypes.addressof(self.buffer))
        self.prctl = ctypes.CDLL(None, use_errno=True).prctl
        # All are passed as long: the kernel reads whole registers.
        self.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

    def close(self) -> bool:
        """Lock this process in, for ever; whether the kernel did."""
        if self.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
            return False
        return bool(self.prctl(_SET_SECCOMP, _FILTER_MODE, ctypes.addressof(self.program), 0, 0) == 0)

    def die_with_parent(self) -> None:
        """Let the kernel end this process when its parent is gone."""
        self.prctl(1, 9, 0, 0, 0)
