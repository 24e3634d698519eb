"""The sandbox as its user meets it: what ordinary code gives, and what it is told when it fails."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from phases.agent.sandbox import sandbox as module
from phases.agent.sandbox.sandbox import Sandbox, SandboxLimits
from phases.agent.tool import ToolContext, ToolError, built_in
from phases.errors import MissingDependency


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SandboxLimits(seconds=5, output_bytes=400)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("374*28", "10472\n"),
        ("x = 3\nprint(x)\nx + 1", "3\n4\n"),
        ("import math\nmath.gcd(12, 18)", "6\n"),
        ("import statistics; statistics.mean([1, 2, 6])", "3\n"),
        ("sorted('forge')", "['e', 'f', 'g', 'o', 'r']\n"),
        ("print('ünïcödé ✓')", "ünïcödé ✓\n"),
        ("None", ""),
        ("", ""),
        ("import sys; sys.exit(3)", ""),
        ("import datetime; datetime.datetime.strptime('2024-02-29', '%Y-%m-%d').day", "29\n"),
    ],
)
def test_works_like_a_notebook_cell(sandbox: Sandbox, code: str, output: str) -> None:
    outcome = sandbox.run(code)
    assert (outcome.output, outcome.error) == (output, None)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1/0", "ZeroDivisionError: division by zero (line 1)"),
        ("x = 1\ny = x +", "SyntaxError"),
        ("\n\nundefined", "NameError: name 'undefined' is not defined (line 3)"),
        ("import requests", "not available here"),
        ("'a' * 10**10", "out of memory"),
    ],
)
def test_a_failure_is_one_line_that_says_where(sandbox: Sandbox, code: str, error: str) -> None:
    outcome = sandbox.run(code)
    assert outcome.error is not None and error in outcome.error and "\n" not in outcome.error


def test_what_was_printed_before_a_failure_is_kept(sandbox: Sandbox) -> None:
    outcome = sandbox.run("print('before')\n1/0")
    assert outcome.output == "before\n" and "ZeroDivisionError" in (outcome.error or "")


def test_too_much_output_is_cut_and_said_to_be(sandbox: Sandbox) -> None:
    outcome = sandbox.run("print('x' * 10_000)")
    assert outcome.output == "x" * 400 + " … (output cut at 400 bytes)" and outcome.error is None


def test_nothing_is_left_from_one_snippet_to_the_next(sandbox: Sandbox) -> None:
    first, second, third = sandbox.run_many(["import math; math.pi = 3; kept = 1", "import math; math.pi", "kept"])
    assert first.error is None and second.output.startswith("3.14159") and "NameError" in (third.error or "")


def test_a_helper_that_was_killed_is_started_again() -> None:
    with Sandbox() as own:
        assert own.run("1+1").output == "2\n"
        assert own._process is not None
        own._process.kill()
        own._process.wait()
        assert own.run("2+2").output == "4\n"


def test_nothing_is_run_where_it_cannot_be_locked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(Path(module.__file__).parent, tmp_path / "sandbox")
    text = (folder / "seccomp.py").read_text().replace('sys.platform.startswith("linux")', 'sys.platform == "other"')
    (folder / "seccomp.py").write_text(text)
    monkeypatch.setattr(module, "__file__", str(folder / "sandbox.py"))
    with Sandbox() as own, pytest.raises(MissingDependency, match="needs Linux"):
        own.run("print(1)")


def test_a_kernel_that_takes_no_filter_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(Path(module.__file__).parent, tmp_path / "sandbox")
    text = (folder / "seccomp.py").read_text().replace("_SET_SECCOMP, _FILTER_MODE,", "_SET_SECCOMP, 99,")
    (folder / "seccomp.py").write_text(text)
    monkeypatch.setattr(module, "__file__", str(folder / "sandbox.py"))
    with Sandbox() as own, pytest.raises(MissingDependency, match="the kernel takes no filter"):
        own.run("print(1)")


def test_the_same_code_prints_the_same_in_every_sandbox() -> None:
    code = "import time\nprint({'red', 'blue', 'green', 'grey'}, time.tzname)"
    said = []
    for _ in range(3):
        with Sandbox() as own:
            said.append(own.run(code).output)
    assert len(set(said)) == 1 and "UTC" in said[0]


def test_the_tool_returns_what_is_printed_or_the_error(sandbox: Sandbox) -> None:
    python, context = built_in("python"), ToolContext(sandbox=sandbox)
    assert python.run({"code": "6*7"}, context) == "42"
    assert python.run({"code": "x = 1"}, context) == "(no output)"
    with pytest.raises(ToolError, match="before ZeroDivisionError"):
        python.run({"code": "print('before'); 1/0"}, context)
    with pytest.raises(ToolError, match="no sandbox here"):
        python.run({"code": "1"}, ToolContext())
