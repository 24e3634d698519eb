"""`import deployment`: everything is there by name, and nothing is imported before it is used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import deployment


def test_every_name_leads_somewhere() -> None:
    assert set(deployment.__all__) == set(deployment._PLACES)
    assert all(callable(getattr(deployment, name)) for name in deployment.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        deployment.nonsense  # noqa: B018


def test_names_are_listed_for_completion() -> None:
    assert {"recommend", "Request", "what_if"} <= set(dir(deployment))


def test_the_example_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs/deployment.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(example, {})
    said = capsys.readouterr().out
    assert "Qwen/Qwen3-32B" in said and "traffic.users=2000" in said


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, deployment; print([m for m in ('numpy', 'pydantic', 'yaml', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_plan_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from deployment import Request, recommend\n"
        "plan = recommend(Request(models=('Qwen/Qwen3-8B',), accelerators=('l40s',)))\n"
        "heavy = ('torch', 'transformers', 'prefect', 'mlflow')\n"
        "print(plan.chosen is not None, [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True []", done.stderr
