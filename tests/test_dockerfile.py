"""The image and its Kubernetes pool, as far as they can be checked without an engine and a cluster."""

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TEMPLATE = json.loads((ROOT / "docs" / "kubernetes" / "base-job-template.json").read_text())


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and what they are given, continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, " ".join(rest.split())) for name, _, rest in (x.partition(" ") for x in joined.splitlines() if x)]


def given(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def copied() -> list[tuple[str, str]]:
    """(source, target) of every COPY."""
    return [(source, words[-1]) for words in map(str.split, given("COPY")) for source in words[:-1]]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the first level from the engine; the last pattern that fits decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and fnmatch.fnmatch(path, pattern):
            verdict = not line.startswith("!")
    return verdict


def test_every_source_exists_and_reaches_the_engine() -> None:
    assert copied()
    for source, _ in copied():
        assert (ROOT / source).exists() and not ignored(source), source
    assert all(map(ignored, (".git", ".venv", "checkpoints", "tests", ".env", "shared")))


def test_the_whole_project_is_copied() -> None:
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {p.name for p in ROOT.iterdir() if (p / "__init__.py").is_file() and any(map(p.match, patterns))}
    assert {"phases", "evaluation", "flows", "configs"} <= packages
    assert packages | {PROJECT["project"]["readme"], "pyproject.toml"} <= {source for source, _ in copied()}


def test_what_pip_reads_was_copied_before() -> None:
    present: set[str] = set()
    installs = []
    for name, rest in instructions():
        if name == "COPY":
            present |= set(rest.split()[:-1])
        elif name == "RUN" and "pip install" in rest:
            words = shlex.split(rest)
            installs.append(words)
            read = [words[i + 1] for i, word in enumerate(words) if word == "--requirement"] or ["pyproject.toml"]
            assert set(read) <= present
    lock, project = installs
    assert "requirements.lock" in lock
    assert {"--no-deps", "--no-build-isolation", "."} <= set(project)


def test_the_user_is_not_root_and_owns_where_runs_are_written() -> None:
    (user,), (folder,) = given("USER"), given("WORKDIR")
    assert user == "1000:1000" and "useradd --uid 1000" in given("RUN")[0]
    assert folder == "/opt/prefect"  # where Prefect runs a deployment that has an image and no pull step
    pod = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
    assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == f"{folder}/checkpoints"
    assert "chown forge:forge checkpoints" in given("RUN")[0]


def test_environment_and_command() -> None:
    (environment,) = given("ENV")
    assert {"HOME=/home/forge", "OMP_NUM_THREADS=2"} <= set(environment.split())
    (command,) = given("CMD")
    assert json.loads(command)[0] in PROJECT["project"]["scripts"]
    assert not given("ENTRYPOINT")  # it would get the worker's command as arguments


def test_the_base_is_the_python_of_the_project() -> None:
    version = re.fullmatch(r"python:(3\.\d+)-slim", given("FROM")[0])
    assert version and PROJECT["project"]["requires-python"].startswith(f">={version[1]},")


def filled(**variables: Any) -> dict[str, Any]:
    """The pod that the worker would ask for."""
    from prefect.utilities.templating import apply_values

    defaults = {n: v["default"] for n, v in TEMPLATE["variables"]["properties"].items() if v.get("default") is not None}
    manifest = apply_values(TEMPLATE["job_configuration"]["job_manifest"], {**defaults, **variables})
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod


def test_the_job_has_its_volume_limits_and_gpus() -> None:
    plain, gpu = filled(), filled(gpus=2, checkpoints_claim="mine", memory_limit="64Gi")
    assert plain["volumes"][0]["persistentVolumeClaim"]["claimName"] == "forge-checkpoints"
    assert gpu["volumes"][0]["persistentVolumeClaim"]["claimName"] == "mine"
    assert plain["containers"][0]["resources"]["limits"] == {"cpu": "4", "memory": "16Gi"}
    assert gpu["containers"][0]["resources"]["limits"] == {"cpu": "4", "memory": "64Gi", "nvidia.com/gpu": 2}
    assert plain["containers"][0]["image"] == f"agent-forge:{PROJECT['project']['version']}"


def test_every_variable_of_the_template_is_declared_and_documented() -> None:
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(TEMPLATE["job_configuration"])))
    assert used == set(TEMPLATE["variables"]["properties"])
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    assert all(f"`{name}`" in page for name in ("gpus", "checkpoints_claim", "shared_memory", "image", "env"))


@pytest.mark.slow
def test_the_steps_work_here(tmp_path: Path) -> None:
    """COPY, pip and CMD for real. The packages of the lock are this environment's, so that pip finds them installed."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "here.pth").write_text(here + "\n")
    folder = tmp_path / "image"
    folder.mkdir()
    for name, rest in instructions():
        if name == "COPY":
            for source in rest.split()[:-1]:
                whole = (ROOT / source).is_dir()
                (shutil.copytree if whole else shutil.copy)(ROOT / source, folder / source)
        elif name == "RUN" and "pip install" in rest:
            subprocess.run([python, *shlex.split(rest)[1:]], cwd=folder, check=True, capture_output=True)
    command = json.loads(given("CMD")[0])
    forge = subprocess.run([python.with_name(command[0]), *command[1:]], cwd=tmp_path, capture_output=True, text=True)
    assert forge.returncode == 0 and "cognate" in forge.stdout, forge.stderr
    where = [python, "-c", "import flows; print(flows.__file__)"]
    assert str(folder) in subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
