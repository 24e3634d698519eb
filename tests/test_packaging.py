"""What a fresh clone needs: a lock that fits the project, make targets, profiles in the package, quiet imports."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("phases", "evaluation", "flows")
LINES = (ROOT / "requirements.lock").read_text().splitlines()
LOCK = [Requirement(line) for line in LINES if line and not line.startswith(("#", "-"))]


def declared() -> list[Requirement]:
    """Everything that pyproject.toml asks for, extras included, less those that the lock leaves out and says why."""
    extras = {
        name: wanted
        for name, wanted in PROJECT["optional-dependencies"].items()
        if name not in ("kubernetes", "llama", "dense")
    }
    groups = [PROJECT["dependencies"], *extras.values()]
    return [Requirement(line) for group in groups for line in group]


def test_lock_pins_every_package_once() -> None:
    assert all(re.fullmatch(r"==[^*]+", str(pin.specifier)) for pin in LOCK)
    names = [canonicalize_name(pin.name) for pin in LOCK]
    assert len(names) == len(set(names)) and "agent-forge" not in names


@pytest.mark.parametrize("wanted", declared(), ids=str)
def test_lock_satisfies_the_project(wanted: Requirement) -> None:
    pins = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in LOCK}
    assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)], prereleases=True)


def test_console_script_is_the_command_line() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="forge")
    assert [script.value for script in scripts] == ["flows.cli:main"]


def test_profiles_are_package_data() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert config["package-data"]["configs"] == ["*.yaml", "distill/*.yaml"]
    assert config["package-data"]["phases.packed.kernels"] == ["*.cpp"]  # compiled where it is installed
    assert {"smoke.yaml", "laptop.yaml", "full.yaml"} == {path.name for path in (ROOT / "configs").glob("*.yaml")}


@pytest.mark.parametrize("target", ["forge", "up", "doctor", "test", "test-all", "browser", "check", "bench", "clean"])
def test_make_has_the_target(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_make_installs_when_there_is_no_environment(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    plan = subprocess.run(["make", "--dry-run", "test"], cwd=tmp_path, capture_output=True, text=True).stdout
    wanted = ("-m venv .venv", "-r requirements.lock", "--editable .", "-m pytest")
    assert sorted(wanted, key=plan.index) == list(wanted)


def test_make_without_python_311_says_so(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("bash", "echo"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    make = shutil.which("make") or ""
    environment = {**os.environ, "PATH": str(tmp_path / "bin")}
    done = subprocess.run([make, "test"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "Python 3.11 is needed" in done.stderr


def test_continuous_integration_checks_then_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text and text.index("make check") < text.index("make test")


@pytest.mark.parametrize(
    "path", sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py")), ids=lambda p: p.stem
)
def test_file_opens_with_what_it_is_and_fits_on_a_few_screens(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)) and len(text.splitlines()) <= 250


def test_product_code_unpickles_nothing() -> None:
    banned = re.compile(r"\bimport pickle\b|\btorch\.load\(|trust_remote_code=True|allow_pickle=True")
    found = [p for name in PACKAGES for p in (ROOT / name).rglob("*.py") if banned.search(p.read_text())]
    assert found == []
