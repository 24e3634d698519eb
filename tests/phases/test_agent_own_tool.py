"""Own tools: real files in real worker processes, that hang, die, print and change."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from phases.agent.own_tool import own_tool
from phases.agent.settings import AgentSettings, open_context, open_tools
from phases.agent.tool import Tool, ToolContext, ToolError
from phases.errors import ConfigError

SCHEMA = (
    'SCHEMA = {"type": "function", "function": {"name": "double", "description": "twice", "parameters": '
    '{"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}}}\n'
)
DOUBLE = "def run(arguments, context):\n    return str(2 * arguments['number'])\n"
CONTEXT = ToolContext()
Opened = Callable[..., Tool]


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Writes a tool's file and opens it; closed at the end."""
    tools = []

    def make(body: str, schema: str = SCHEMA, **options: Any) -> Tool:
        path = tmp_path / "mine.py"
        path.write_text(f"import os, sys, time\n{schema}{body}", encoding="utf-8")
        tools.append(own_tool(path, **options))
        return tools[-1]

    yield make
    for tool in tools:
        tool.close()


def test_a_tool_is_read_and_called(opened: Opened, tmp_path: Path) -> None:
    tool = opened(DOUBLE)
    assert (tool.name, tool.source, len(tool.digest)) == ("double", str(tmp_path / "mine.py"), 64)
    assert tool.parameters["required"] == ["number"]
    assert [tool.run({"number": number}, CONTEXT) for number in (4, -1)] == ["8", "-2"]


def test_its_worker_is_another_process_that_stays_and_has_no_context(opened: Opened) -> None:
    tool = opened("def run(arguments, context):\n    return f'{os.getpid()} {context}'\n")
    first, second = tool.run({}, CONTEXT), tool.run({}, CONTEXT)
    assert first == second
    assert int(first.split()[0]) != os.getpid() and first.endswith(" None")


@pytest.mark.parametrize("signature", ["arguments", "arguments, context", "arguments, context=7", "*both"])
def test_the_context_is_given_to_those_that_take_it(opened: Opened, signature: str) -> None:
    tool = opened(f"def run({signature}):\n    return repr(sorted(locals().items()))\n")
    given = {"arguments": "[('arguments', {'é': 1})]", "*both": "[('both', ({'é': 1}, None))]"}
    both = "[('arguments', {'é': 1}), ('context', None)]"
    assert tool.run({"é": 1}, CONTEXT) == given.get(signature, both)


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ("ToolError('no such\\nnumber')", "no such number"),
        ("KeyError('x')", "KeyError: 'x'"),
        ("ValueError()", "ValueError"),
        ("SystemExit(3)", "SystemExit: 3"),
        ("RecursionError('deep\\nand deeper')", "RecursionError: deep and deeper"),
    ],
)
def test_what_it_raises_is_one_line_for_the_model(opened: Opened, raised: str, message: str) -> None:
    body = (
        f"from phases.agent.tool import ToolError\ndef run(arguments):\n    if arguments: raise {raised}\n    return 1"
    )
    tool = opened(body)
    with pytest.raises(ToolError) as error:
        tool.run({"number": 1}, CONTEXT)
    assert str(error.value) == message
    assert tool.run({}, CONTEXT) == "1"  # and it goes on


def test_a_result_that_is_no_text_is_made_one_or_is_a_failure(opened: Opened) -> None:
    tool = opened(
        "class Odd:\n    def __str__(self): raise ValueError('odd')\n"
        "def run(arguments):\n    return Odd() if arguments else {'half': '\\ud83d'}\n"
    )
    assert tool.run({}, CONTEXT) == "{'half': '\\ud83d'}"
    with pytest.raises(ToolError, match="ValueError: odd"):
        tool.run({"number": 1}, CONTEXT)


def test_what_it_prints_and_reads_does_not_disturb_it(opened: Opened, capfd: pytest.CaptureFixture[str]) -> None:
    tool = opened(
        "print('{\"schema\": 1}')\n"
        "def run(arguments):\n"
        "    print('{\"result\": 1}')\n"
        "    os.write(1, b'raw\\n')\n"
        "    os.system('echo child')\n"
        "    return str(2 * arguments['number']) + repr(sys.stdin.read())\n"
    )
    assert [tool.run({"number": number}, CONTEXT) for number in (1, 2)] == ["2''", "4''"]
    out, err = capfd.readouterr()
    assert out == "" and all(text in err for text in ("raw", "child", '{"result": 1}'))


def test_large_arguments_and_results_come_through(opened: Opened) -> None:
    tool = opened("def run(arguments):\n    return arguments['text'] * 2\n")
    text = "é\n" * 500_000
    assert tool.run({"text": text}, CONTEXT) == text * 2


def test_a_call_that_hangs_is_ended_with_all_that_it_started(opened: Opened, tmp_path: Path) -> None:
    tool = opened(
        "import subprocess\n"
        "def run(arguments):\n"
        "    if not arguments: return 'well'\n"
        "    child = subprocess.Popen(['sleep', '60'])\n"
        f"    open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "    time.sleep(60)\n",
        call_seconds=1.5,
    )
    start = time.monotonic()
    with pytest.raises(ToolError, match=r"^double: timed out after 1\.5 s$"):
        tool.run({"number": 1}, CONTEXT)
    assert time.monotonic() - start < 10
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())
    assert tool.run({}, CONTEXT) == "well"


def test_a_call_that_takes_no_input_hangs_no_longer(opened: Opened) -> None:
    """A stopped worker reads nothing, so that the pipe is full and writing to it blocks."""
    tool = opened(
        "import signal\ndef run(arguments):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    return 'on'\n",
        call_seconds=1.0,
    )
    with pytest.raises(ToolError, match="timed out after 1 s"):
        tool.run({"text": "a" * 4_000_000}, CONTEXT)


@pytest.mark.parametrize("end", ["os._exit(0)", "os.abort()", "os.kill(os.getpid(), 9)"])
def test_a_worker_that_dies_is_a_failure_and_is_started_again(opened: Opened, end: str) -> None:
    tool = opened(f"def run(arguments):\n    if arguments: {end}\n    return str(os.getpid())\n")
    before = tool.run({}, CONTEXT)
    with pytest.raises(ToolError, match="double: the tool's process ended"):
        tool.run({"number": 1}, CONTEXT)
    assert tool.run({}, CONTEXT) != before
    assert gone(int(before))


def test_a_worker_that_was_killed_between_calls_is_started_again(opened: Opened) -> None:
    tool = opened("def run(arguments):\n    return str(os.getpid())\n")
    before = int(tool.run({}, CONTEXT))
    os.kill(before, 9)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)  # ended, left for the runner to reap
    assert tool.run({}, CONTEXT) != str(before)


def test_closing_ends_the_worker_and_a_later_call_starts_one(opened: Opened) -> None:
    tool = opened("def run(arguments):\n    return str(os.getpid())\n")
    tool.close()  # nothing runs yet
    before = tool.run({}, CONTEXT)
    tool.close()
    tool.close()
    assert not alive(int(before))
    assert tool.run({}, CONTEXT) != before


def test_opening_leaves_no_process(opened: Opened, tmp_path: Path) -> None:
    opened(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n{DOUBLE}")
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_worker_ends_with_the_process_that_asked_even_amid_a_call(opened: Opened, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    hang = f"    open({str(pid)!r}, 'w').write(str(os.getpid()))\n    os.kill(os.getppid(), 9)\n    time.sleep(60)\n"
    opened(f"def run(arguments):\n{hang}")
    asks = "from pathlib import Path; from phases.agent.own_tool import own_tool; import sys; "
    asks += "own_tool(Path(sys.argv[1])).run({}, None)"
    ended = subprocess.run([sys.executable, "-c", asks, str(tmp_path / "mine.py")], timeout=60)
    assert ended.returncode == -9
    assert gone(int(pid.read_text()))


def test_a_file_that_was_changed_since_is_not_run(opened: Opened, tmp_path: Path) -> None:
    tool = opened(DOUBLE)
    assert tool.run({"number": 1}, CONTEXT) == "2"
    tool.close()
    opened(DOUBLE.replace("2", "3"))
    with pytest.raises(ToolError, match="double: the tool's file was changed"):
        tool.run({"number": 1}, CONTEXT)
    (tmp_path / "mine.py").unlink()
    with pytest.raises(ToolError, match="double: the tool's file was changed"):
        tool.run({"number": 1}, CONTEXT)


@pytest.mark.parametrize(
    ("schema", "body", "problem"),
    [
        (SCHEMA, "run = 3", r"has no function `run\(arguments, context\)`; add one"),
        (SCHEMA, "def run(a, b, c): pass", r"has no function `run\(arguments, context\)`; add one"),
        (SCHEMA, "def run(*, arguments): pass", r"has no function `run\(arguments, context\)`; add one"),
        ("", DOUBLE, "has no SCHEMA"),
        ("SCHEMA = {1, 2}\n", DOUBLE, "has no SCHEMA"),
        ("SCHEMA = {'function': {1, 2}}\n", DOUBLE, "its SCHEMA is not JSON"),
        ("SCHEMA = {'function': float('nan')}\n", DOUBLE, "its SCHEMA is not JSON"),
        ("SCHEMA = {'function': {'name': 'x'}}\n", DOUBLE, "its SCHEMA lacks 'description'"),
        (SCHEMA.replace('"double"', '"my tool"'), DOUBLE, "its name 'my tool' has signs other than"),
        (SCHEMA.replace('"integer"', '"whole"'), DOUBLE, "its parameters are no JSON schema"),
        (SCHEMA, "def run(:", r"fails when it is imported \(SyntaxError: .*mend it"),
        (SCHEMA, "raise ValueError('a\\nb')", r"fails when it is imported \(ValueError: a b\); mend it"),
        (SCHEMA, "import no_such_package", "fails when it is imported .*no_such_package"),
        (SCHEMA, "sys.exit(2)", r"fails when it is imported \(SystemExit: 2\); mend it"),
        (SCHEMA, "os._exit(2)", "ends its process when it is imported; mend it"),
    ],
)
def test_a_file_that_is_no_tool_is_one_line(opened: Opened, schema: str, body: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        opened(body, schema)
    assert str(error.value).startswith("tool ") and "mine.py" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_hangs_when_it_is_imported_is_one_line(opened: Opened) -> None:
    with pytest.raises(ConfigError, match="its import takes longer than 1 s; make it quicker"):
        opened("time.sleep(60)", start_seconds=1.0)


def test_a_path_that_is_no_python_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tool.txt").write_text(SCHEMA + DOUBLE)
    with pytest.raises(ConfigError, match=r"tool\.txt: not a Python file"):
        own_tool(tmp_path / "tool.txt")
    for missing in (tmp_path / "none.py", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read .*; give a Python file"):
            own_tool(missing)


def test_a_file_may_have_dataclasses_and_know_where_it_is(opened: Opened, tmp_path: Path) -> None:
    tool = opened(
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: 'int'\n"
        "def run(arguments):\n    return f'{Point(1)} {__file__}'\n"
    )
    assert tool.run({}, CONTEXT) == f"Point(x=1) {tmp_path / 'mine.py'}"


def test_the_context_of_an_agent_ends_its_workers(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SCHEMA + "import os\ndef run(arguments):\n    return str(os.getpid())\n")
    tools = open_tools((), [path])
    with open_context(AgentSettings(), tools, None, None, "test") as context:
        pid = int(tools[0].run({"number": 1}, context))
        assert alive(pid)
    assert not alive(pid)


def test_two_tools_of_one_name_are_refused(opened: Opened, tmp_path: Path) -> None:
    opened(DOUBLE)
    with pytest.raises(ConfigError, match="tool 'double' is there twice; rename one"):
        open_tools((), [tmp_path / "mine.py"] * 2)
