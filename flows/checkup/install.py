"""What is installed: Python, packages, Prefect's server, devices, extras, the commit."""

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from flows.checkup.finding import INSTALL, ROOT, Finding, Scope, ok, run_python, warning, wrong

REASONS = {
    "fastapi": "Prefect 3.8.8's server breaks on 0.151 and newer",
    "sqlalchemy": "Prefect 3.8.8's scheduler silently stops on 2.1 and newer",
    "torch": "tested up to 2.13",
}
"""Why a bound is what it is, where that is not plain."""
BOUNDS = {"fastapi": "<0.151", "sqlalchemy": "<2.1", "torch": ">=2.8,<2.14", "prefect": "==3.8.8"}
"""Known to be needed even where there is no pyproject.toml to read."""
LIMIT_SECONDS = 8.0
APP = "from prefect.server.api.server import create_app; create_app()"
DEVICES = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    "version": torch.__version__,
    "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
    "cuda_built": torch.version.cuda,
    "mps": torch.backends.mps.is_available(),
    "bf16": bool(torch.cpu._is_avx512_bf16_supported()),
    "cpu": torch.backends.cpu.get_cpu_capability(),
}))
"""


def python(scope: Scope) -> Iterator[Finding]:
    """The interpreter: 3.11, in an environment of its own."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != (3, 11):
        yield wrong("python", f"{version}, 3.11 is needed", "install Python 3.11, then: rm -rf .venv && make test")
    elif sys.prefix == sys.base_prefix:
        yield warning("python", f"{version} outside a virtual environment", "make test")
    else:
        yield ok("python", f"{version} in {sys.prefix}")


def installed(name: str) -> str | None:
    """The version of a package; None when it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages(scope: Scope) -> Iterator[Finding]:
    """Every direct dependency is there in a version that works; and how far the rest is from the lock."""
    bad = list(_outside_bounds())
    yield from bad
    named = {finding.found.split()[0] for finding in bad}
    locked = dict(_locked())
    if not locked:
        yield warning("packages", f"no requirements.lock in {ROOT}, versions cannot be compared")
        return
    found = {name: installed(name) for name in locked if name not in named}
    gone = sorted(name for name, version in found.items() if version is None)
    differ = {name: version for name, version in found.items() if version and not _same(version, locked[name])}
    other = sorted(f"{name} {version}" for name, version in differ.items())
    if gone:
        yield warning("packages", f"of the lock {len(gone)} missing ({_some(gone)})", INSTALL)
    if other:
        yield warning("packages", f"{len(other)} other than in the lock ({_some(other)})", INSTALL)
    if not bad and not gone and not other:
        yield ok("packages", f"all {len(locked)} of the lock")


def _outside_bounds() -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    for name, bounds in {**BOUNDS, **_dependencies()}.items():
        version = installed(name)
        why = f" ({REASONS[name]})" if name in REASONS else ""
        if version is None:
            yield wrong("packages", f"{name} is missing", INSTALL)
        elif not SpecifierSet(bounds).contains(version, prereleases=True):
            yield wrong("packages", f"{name} {version}, needed is {bounds}{why}", INSTALL)


def _dependencies() -> dict[str, str]:
    """Direct dependencies and their bounds."""
    from packaging.requirements import Requirement

    path = ROOT / "pyproject.toml"
    if not path.is_file():
        return {}
    listed = [Requirement(line) for line in tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]]
    return {requirement.name: str(requirement.specifier) for requirement in listed}


def _locked() -> Iterator[tuple[str, str]]:
    path = ROOT / "requirements.lock"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        if match := re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line):
            yield match[1], match[2]


def _same(version: str, locked: str) -> bool:
    """2.13.0+cpu and 2.13.0+cu130 are builds of the same 2.13.0."""
    return version.partition("+")[0] == locked.partition("+")[0]


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def prefect_server(scope: Scope) -> Iterator[Finding]:
    """Prefect's server can be made: a FastAPI that is too new passes every other check."""
    try:
        code, said = run_python(APP, LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        yield warning("prefect", f"its server took more than {LIMIT_SECONDS:.0f} s to import, the machine is busy")
        return
    yield (
        wrong("prefect", f"its server cannot be imported ({said})", INSTALL)
        if code
        else ok("prefect", f"{installed('prefect')}, its server imports")
    )


def devices(scope: Scope) -> Iterator[Finding]:
    """What torch can compute on."""
    try:
        code, said = run_python(DEVICES, LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        yield warning("devices", f"torch took more than {LIMIT_SECONDS:.0f} s to import, the machine is busy")
        return
    if code:
        yield wrong("devices", f"torch cannot be imported ({said})", INSTALL)
        return
    seen = json.loads(said)
    kinds = [*seen["cuda"], *(["MPS"] if seen["mps"] else []), f"CPU with {seen['cpu']}"]
    half = "in hardware" if seen["bf16"] else "emulated, so float32 is used"
    yield ok("devices", f"{', '.join(kinds)}; bfloat16 on the CPU {half}")
    if not seen["cuda"] and Path("/dev/nvidiactl").exists():
        built = f"is built for CUDA {seen['cuda_built']}" if seen["cuda_built"] else "is built without CUDA"
        yield warning(
            "devices", f"an NVIDIA driver is here, but torch {seen['version']} {built} and sees no device", INSTALL
        )


def extras(scope: Scope) -> Iterator[Finding]:
    """What is optional."""
    for name, use in (("dask", "--set runner=dask"), ("ray", "--set runner=ray")):
        if importlib.util.find_spec(f"prefect_{name}"):
            yield ok("extras", f"{name} {installed(f'prefect-{name}')}")
        else:
            yield ok(
                "extras",
                f"{name} not installed, only {use} needs it",
                f"{sys.executable} -m pip install -e '.[{name}]'",
            )
    browsers = ("chromium", "chromium-browser", "google-chrome", "chrome")
    if browser := next(filter(None, map(shutil.which, browsers)), None):
        yield ok("extras", f"browser {browser}")
    else:
        yield ok("extras", "no chromium, only the browser test needs it", "apt-get install chromium")


def commit(scope: Scope) -> Iterator[Finding]:
    """The code's version, which every result carries."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # it would write a fresher index
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is None or done.returncode:
        yield ok("commit", "unknown, not a git checkout")
    elif (said := done.stdout.strip()).endswith("-dirty"):
        yield ok("commit", f"{said}: changed since, and reports will say so", "git commit")
    else:
        yield ok("commit", said)
