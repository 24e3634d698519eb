"""The machine: cores and threads, memory, the disk of the runs, ports."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from flows.checkup.finding import Finding, Scope, ask, ok, warning, wrong

GIB = 2**30
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "beegfs", "gpfs", "glusterfs"}
PSEUDO = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "tracefs", "securityfs", "configfs", "bpf"}
PORTS = {"Prefect": (4200, "/api/health", "--port"), "MLflow": (5000, "/health", "--mlflow-port")}
"""Default port, where our server says that it is well, and the option that chooses another."""


def cores(scope: Scope) -> Iterator[Finding]:
    """Cores that we may use, threads, and how busy they are."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    share = min(float(usable), quota) if quota else float(usable)
    threads, spin = os.environ.get("OMP_NUM_THREADS"), os.environ.get("GOMP_SPINCOUNT")
    yield ok("cores", f"{usable} usable" + (f", limited to {quota:g} by the cgroup" if quota else ""))
    if threads is not None and not threads.split(",")[0].strip().isdigit():
        yield wrong("threads", f"OMP_NUM_THREADS={threads} is no number", "unset OMP_NUM_THREADS")
    elif threads is not None and int(threads.split(",")[0]) > share:
        yield warning(
            "threads", f"OMP_NUM_THREADS={threads} for {share:g} cores", f"export OMP_NUM_THREADS={max(1, int(share))}"
        )
    elif threads is None and quota and quota < usable:  # torch counts cores, not the quota
        yield warning(
            "threads", f"{usable} threads for {share:g} cores", f"export OMP_NUM_THREADS={max(1, int(share))}"
        )
    else:
        yield ok("threads", f"OMP_NUM_THREADS={threads or 'not set, all cores'}")
    if spin is not None and spin.isdigit() and int(spin) > 1_000_000:
        yield warning("threads", f"GOMP_SPINCOUNT={spin}: waiting threads keep a core busy", "unset GOMP_SPINCOUNT")
    load = os.getloadavg()[0]
    if load > share:
        yield warning("load", f"{load:.1f} for {share:g} cores: runs will take longer, timings will not compare")
    else:
        yield ok("load", f"{load:.1f}")


def _quota() -> float | None:
    """Cores' worth of time that the cgroup allows; None without a limit."""
    with contextlib.suppress(OSError, ValueError):
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    return None


def memory(scope: Scope) -> Iterator[Finding]:
    """What is free, and the cgroup's limit, which the kernel enforces by killing."""
    import psutil

    free, limit = psutil.virtual_memory().available, _memory_limit()
    if limit is not None:
        free = min(free, max(0, limit[0] - limit[1]))
    text = f"{free / GIB:.1f} GiB free" + (f", limited to {limit[0] / GIB:.1f} GiB by the cgroup" if limit else "")
    mend = "stop other programs, or give it more memory"
    if free < GIB / 2:
        yield wrong("memory", f"{text}; a laptop run needs about 1 GiB", mend)
    elif free < 2 * GIB:
        yield warning("memory", f"{text}; a run with `forge up` needs about 2 GiB", mend)
    else:
        yield ok("memory", text)


def _memory_limit() -> tuple[int, int] | None:
    """The cgroup's limit and use in bytes."""
    names = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    for pair in names:
        with contextlib.suppress(OSError, ValueError):
            limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in pair)
            return None if limit >= 2**60 else (limit, used)
    return None


def disk(scope: Scope) -> Iterator[Finding]:
    """The folder of all runs, or the one in which it would be made, can be written and has room."""
    folder = next(path for path in (scope.out.absolute(), *scope.out.absolute().parents) if path.exists())
    kind, mend = filesystem(folder), "forge run --out DIR, on a disk that can be written"
    if not folder.is_dir():
        yield wrong("disk", f"{folder} is a file, not a folder", mend)
        return
    if kind in PSEUDO or not writable(folder):
        yield wrong("disk", f"{folder} cannot be written ({kind or 'unknown'})", mend)
        return
    free = shutil.disk_usage(folder).free
    text = f"{free / GIB:.1f} GiB free in {folder} ({kind or 'unknown file system'})"
    if free < GIB / 2:
        yield wrong("disk", text, f"delete runs in {scope.out}, or {mend}")
    elif free < 4 * GIB:
        yield warning("disk", text, f"delete runs in {scope.out}, or {mend}")
    else:
        yield ok("disk", text)
    if kind in NETWORK or (kind or "").startswith("fuse."):
        yield warning("disk", f"{folder} is on {kind}: sqlite and our locks need a local disk", mend)


def filesystem(folder: Path) -> str | None:
    """The type of the file system that the folder is on; None where that cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        mounts = []
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            mounts.append((Path(before.split()[4].replace("\\040", " ")), after.split()[0]))
        resolved = folder.resolve()
        return max((m for m in mounts if resolved.is_relative_to(m[0])), key=lambda m: len(m[0].parts))[1]
    return None


def writable(folder: Path) -> bool:
    """Whether a file could be made there, found out without making one that has a name."""
    if hasattr(os, "O_TMPFILE"):
        try:
            os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
            return True
        except PermissionError:
            return False
        except OSError:  # a file system that has no such files, or is read-only
            pass
    return os.access(folder, os.W_OK | os.X_OK) and not os.statvfs(folder).f_flag & os.ST_RDONLY


def ports(scope: Scope) -> Iterator[Finding]:
    """The ports of `forge up` are free, or our own servers have them."""
    for name, (port, health, option) in PORTS.items():
        if _free(port):
            yield ok("ports", f"{port} free")
        elif ask(f"http://127.0.0.1:{port}{health}", loopback=True) is not None:
            yield ok("ports", f"{port}: a {name} server answers")
        else:
            mend = f"stop it, or forge up {option} {port + 1}"
            yield warning("ports", f"{port} ({name}) is taken by {_holder(port)}", mend)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _holder(port: int) -> str:
    with contextlib.suppress(Exception):  # psutil may be missing, and other users' sockets may not be looked at
        import psutil

        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "a process of another user"
