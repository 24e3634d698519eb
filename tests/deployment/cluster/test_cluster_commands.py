"""`forge deploy` and `forge simulate` as commands: arguments in, exit code and one line out."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from flows.deploy_commands import add_arguments, add_simulate_arguments, deploy, read, simulate
from phases.errors import InputError

TIMING = {
    "steps": [[1, 0.01], [8, 0.02]],
    "prefills": [[100, 0.01], [1000, 0.1]],
    "overheads": [[1, 0.0]],
    "slots": 8,
    "kv_tokens": 50_000,
    "step_tokens": 2048,
    "tokens_per_step": 1.0,
}
LOAD = {"prompt_tokens": 1000, "output_tokens": 50, "concurrency": 4, "rate": None}
PLAN = {
    "served_name": "Qwen/Qwen3-32B",
    "timing": TIMING,
    "candidate": {
        "load": LOAD,
        "replicas": 2,
        "serving": {"max_context": None},
        "model": {"context": 40_000},
        "estimate": {"ttft": {"value": 0.1}, "tpot": {"value": 0.02}},
    },
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "qwen"},
    "spec": {"selector": {"app": "qwen"}, "ports": [{"port": 8000}]},
}

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "qwen"},
    "spec": {
        "selector": {"matchLabels": {"app": "qwen"}},
        "template": {
            "metadata": {"labels": {"app": "qwen"}},
            "spec": {"containers": [{"name": "engine", "image": "x"}]},
        },
    },
}
WRONG = (
    ("replicas", "x"),
    ("replicas", 0),
    ("load", "output_tokens", "x"),
    ("load", "prompt_tokens", True),
    ("load", "concurrency", "many"),
    ("load", "rate", -1),
    ("model", "context", "long"),
    ("estimate", "ttft", None),
)


def altered(*change: Any) -> dict[str, Any]:
    """The plan with one number that is none."""
    made: dict[str, Any] = json.loads(json.dumps(PLAN))
    *way, last, value = change
    inside = made["candidate"]
    for part in way:
        inside = inside[part]
    inside[last] = {"value": value} if last == "ttft" else value
    return made


def arguments(add: Any, *given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    add(parser)
    return parser.parse_args(given)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    folder = tmp_path / "plan"
    (folder / "kubernetes").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "kubernetes/serving.yaml").write_text(yaml.safe_dump(SERVICE))
    return folder


def test_deploy_a_plans_folder(plan: Path, api_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = (str(plan), "--kubeconfig", str(api_server.kubeconfig), "--json")
    assert deploy(arguments(add_arguments, *given)) == 0
    shown = capsys.readouterr()
    objects = [{"object": "Service/qwen", "action": "created"}]
    assert json.loads(shown.out) == {"namespace": "models", "objects": objects}
    assert "deploy: Service/qwen is ready" in shown.err and "token" not in shown.err
    assert deploy(arguments(add_arguments, *given[:3], "--namespace", "other", "--dry-run")) == 0
    assert capsys.readouterr().out == "Service/qwen checked\n"


def test_check_needs_no_cluster(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(arguments(add_arguments, str(plan), "--check")) == 0
    assert capsys.readouterr().out == "1 manifest checked, nothing is wrong: Service/qwen\n"
    (plan / "wrong.yaml").write_text(yaml.safe_dump({**SERVICE, "spec": {"port": 1}}))
    with pytest.raises(InputError, match="Service/qwen: spec: unknown field 'port'; mend"):
        deploy(arguments(add_arguments, str(plan / "wrong.yaml"), "--check"))
    (plan / "isvc.yaml").write_text(
        "{apiVersion: serving.kserve.io/v1beta1, kind: InferenceService, metadata: {name: x}}"
    )
    with pytest.raises(InputError, match="no CRD of it here"):
        deploy(arguments(add_arguments, str(plan / "isvc.yaml"), "--check", "--schemas", str(plan)))


@pytest.mark.parametrize(
    "text",
    [
        "{apiVersion: v1, kind: Service, metadata: null}",
        "{apiVersion: v1, kind: [Service], metadata: {name: x}}",
        "{apiVersion: v1, kind: Service, metadata: {name: 5}}",
        "",
        "{apiVersion: x/v1, kind: Odd, metadata: {name: x}, 5: 6, a: 7}",
    ],
)
def test_check_what_is_no_manifest(tmp_path: Path, text: str) -> None:
    schema = {"type": "object", "properties": {"apiVersion": {}, "kind": {}}}
    versions = [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]
    spec = {"group": "x", "names": {"kind": "Odd"}, "versions": versions}
    (tmp_path / "crd.yaml").write_text(yaml.safe_dump({"kind": "CustomResourceDefinition", "spec": spec}))
    (tmp_path / "given.yaml").write_text(text)
    with pytest.raises(InputError, match="no manifest; it needs|there is nothing|unknown field '5', 'a'"):
        deploy(arguments(add_arguments, str(tmp_path / "given.yaml"), "--check", "--schemas", str(tmp_path)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_deploy_that_is_told_to_stop_takes_back(
    plan: Path, api_server: Any, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """As the user's Ctrl-C: the command line says then that it was stopped."""
    (plan / "kubernetes/serving.yaml").write_text(yaml.safe_dump_all([SERVICE, DEPLOYMENT]))
    api_server.fate = "never"

    def press() -> None:
        until = time.monotonic() + 20
        while ("WATCH", "Deployment", False) not in api_server.asked and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    def unheard(*_: Any) -> None:
        raise AssertionError("it does not listen")

    before = signal.signal(number, unheard)
    try:
        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            deploy(arguments(add_arguments, str(plan), "--kubeconfig", str(api_server.kubeconfig), "--timeout", "30"))
    finally:
        signal.signal(number, before)
    assert api_server.objects == {} and "everything is again as it was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "no YAML"), ("- x", "is an object with apiVersion"), (None, "no such file")]
)
def test_what_is_no_manifest(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "given.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read(path)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_timeout_above_zero(plan: Path, seconds: str) -> None:
    with pytest.raises(InputError, match=f"--timeout {seconds}: give seconds above 0"):
        deploy(arguments(add_arguments, str(plan), "--timeout", seconds))


def test_simulate_at_once(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(arguments(add_simulate_arguments, str(plan), "--instant", "--json")) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["predicted"] == {"ttft": 0.1, "tpot": 0.02} and shown["simulated"]["tpot"]["mean"] > 0.01
    assert simulate(arguments(add_simulate_arguments, str(plan), "--instant")) == 0
    assert capsys.readouterr().out.count("predicted mean") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("{}", "no plan"),
        ("[", "no plan"),
        (json.dumps({**PLAN, "timing": {"steps": 1}}), "timing"),
        (json.dumps({**PLAN, "served_name": 5}), "no plan"),
        ("[]", "no plan"),
        (json.dumps({**PLAN, "candidate": "x"}), "no plan"),
        *((json.dumps(altered(*change)), f"no plan .{change[-2]} is") for change in WRONG),
    ],
)
def test_simulate_what_is_no_plan(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError, match=message):
        simulate(arguments(add_simulate_arguments, str(tmp_path), "--instant"))


@pytest.mark.parametrize(
    "given",
    [
        ("--replicas", "0"),
        ("--prompt-tokens", "0"),
        ("--port", "70000"),
        ("--replicas", "-1", "--instant"),
        ("--prompt-tokens", "0", "--instant"),
    ],
)
def test_simulate_bad_numbers(plan: Path, given: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=given[0]):
        simulate(arguments(add_simulate_arguments, str(plan), *given))


def test_simulate_serves_until_it_is_told_to_stop(plan: Path) -> None:
    """Whoever has an open answer then is told so, and nobody else anything."""
    code = (
        "import argparse, sys; from flows.deploy_commands import *; p = argparse.ArgumentParser(); "
        "p.add_argument('--json', action='store_true'); add_simulate_arguments(p); sys.exit(simulate(p.parse_args()))"
    )
    line = [sys.executable, "-c", code, str(plan), "--port", "0", "--json"]
    root = Path(__file__).parents[3]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, **pipes, cwd=root, env={**os.environ}) as server:
        try:
            assert server.stdout is not None
            said = json.loads(server.stdout.readline())
            assert said["model"] == "Qwen/Qwen3-32B" and said["replicas"] == 2
            until = time.monotonic() + 30
            while time.monotonic() < until:
                try:
                    answer = httpx.get(f"{said['url']}/v1/models", timeout=10)
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            assert answer.json()["data"][0]["id"] == "Qwen/Qwen3-32B"
            body = {"prompt": "x", "max_tokens": 30_000, "stream": True}
            with httpx.stream("POST", f"{said['url']}/v1/completions", json=body, timeout=30) as reply:
                lines = reply.iter_lines()
                assert "word" in next(lines)
                server.terminate()
                last = [one for one in lines if one][-1]
            assert json.loads(last.removeprefix("data: "))["error"]["message"] == "the server was told to stop"
        finally:
            server.terminate()
        assert server.wait(timeout=30) == 0
        assert server.stderr is not None and server.stderr.read() == ""
