"""`forge deploy`: a plan's manifests brought to a Kubernetes cluster; `forge simulate`: the plan tried out without one.

    forge recommend --use-case chat --manifests plan
    forge deploy plan --dry-run                    # the server checks everything and stores nothing
    forge deploy plan                              # applies, waits until it serves, or puts everything back
    forge deploy plan/kserve/inference-service.yaml --context staging
    forge deploy plan --check --schemas crds       # without a cluster
    forge simulate plan                            # a stand-in without a GPU, for a load test
    sh plan/load-test.sh

The cluster is that of the kubeconfig; its credentials are read by the official client and shown nowhere.
"""

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phases.errors import InputError

if TYPE_CHECKING:
    from deployment.simulator.running import Fleet
    from deployment.simulator.timing import Timing

Manifest = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `forge deploy`."""
    add = parser.add_argument
    add("manifests", type=Path, nargs="+", metavar="PATH", help="a plan's folder, or YAML files of it")
    add("--namespace", default="", metavar="NAME", help="where to (default: the context's)")
    add("--context", metavar="NAME", help="of the kubeconfig (default: its current one)")
    add("--kubeconfig", type=Path, metavar="FILE", help="default: $KUBECONFIG, or ~/.kube/config")
    # The default is the rollout's own, longer than a checkpoint may take to load.
    add("--timeout", type=float, metavar="S", help="wait so long until it serves (default: 4200)")
    add("--dry-run", action="store_true", help="let the server check everything, and change nothing")
    add("--force", action="store_true", help="take over fields that another tool owns")
    add("--check", action="store_true", help="check on this machine, without a cluster")
    add("--schemas", type=Path, metavar="DIR", help="with --check: the CRDs of kinds that are not Kubernetes' own")


def add_simulate_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `forge simulate`."""
    add = parser.add_argument
    add("plan", type=Path, metavar="PLAN", help="what `forge recommend --manifests` wrote")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: 127.0.0.1)")
    add("--port", type=int, default=8000, metavar="N", help="of the server; 0: any free one (default: 8000)")
    add("--replicas", type=int, metavar="N", help="behind the address (default: the plan's)")
    add("--prompt-tokens", type=int, metavar="N", help="of every prompt (default: its bytes / 4)")
    add("--instant", action="store_true", help="play the planned load on the engine's own clock, and print what it saw")


def deploy(arguments: argparse.Namespace) -> int:
    """Check, apply, wait; or take everything back."""
    from flows.console import say  # tqdm: the command line itself works with nothing installed

    if arguments.timeout is not None and not 0 < arguments.timeout < math.inf:
        raise InputError(f"--timeout {arguments.timeout:g}: give seconds above 0")
    manifests = [one for path in arguments.manifests for one in read(path)]
    if arguments.check:
        return _check(manifests, arguments)
    from deployment.cluster.connection import connect
    from deployment.cluster.rollout import TIMEOUT_SECONDS, roll_out
    from flows.up import Stopped, stop_signals

    try:
        with stop_signals(), connect(arguments.kubeconfig, arguments.context, arguments.namespace) as cluster:
            done = roll_out(
                cluster,
                manifests,
                timeout_s=arguments.timeout or TIMEOUT_SECONDS,
                dry_run=arguments.dry_run,
                force=arguments.force,
                say=lambda line: say(f"deploy: {line}"),
            )
    except Stopped:
        raise KeyboardInterrupt from None
    if arguments.json:
        result = {"namespace": cluster.namespace, "objects": [{"object": o.object, "action": o.action} for o in done]}
        print(json.dumps(result, indent=2))
    else:
        for one in done:
            print(f"{one.object} {one.action}")
    return 0


def read(path: Path) -> list[Manifest]:
    """The manifests of a file, or what a plan's folder serves with. Raises `InputError` for what is none."""
    import yaml

    from deployment.manifests.bundle import SERVING

    file = path / SERVING if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file}: no such file; give what `forge recommend --manifests DIR` wrote")
    try:
        found = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: no YAML: {' '.join(str(error).split())[:200]}") from None
    documents = [one for one in found if one is not None]
    if not all(isinstance(one, dict) for one in documents):
        raise InputError(f"{file}: a manifest is an object with apiVersion, kind and metadata")
    return documents


def _check(manifests: list[Manifest], arguments: argparse.Namespace) -> int:
    """Kubernetes' own kinds against the client's models, others against their CRDs."""
    from deployment.cluster.allowed import check_shape
    from deployment.cluster.builtin import is_builtin, problems
    from deployment.cluster.connection import place
    from deployment.counting import counted
    from deployment.manifests.structural import read_crds, violations

    check_shape(manifests)
    crds = read_crds(arguments.schemas) if arguments.schemas else {}
    found = {place(one): problems(one) if is_builtin(one) else violations(one, crds) for one in manifests}
    wrong = [f"{name}: {line}" for name, lines in found.items() for line in lines]
    if wrong:
        raise InputError("; ".join(wrong) + "; mend these fields, or write the manifests anew")
    if arguments.json:
        print(json.dumps({"checked": list(found)}, indent=2))
    else:
        print(f"{counted(len(found), 'manifest')} checked, nothing is wrong: {', '.join(found)}")
    return 0


def simulate(arguments: argparse.Namespace) -> int:
    """Serve the plan's stand-in until Ctrl-C, or play its load at once."""
    from deployment.simulator.timing import Timing

    plan = _plan(arguments.plan)
    timing, candidate = Timing.read(plan["timing"]), plan["candidate"]
    replicas = candidate["replicas"] if arguments.replicas is None else arguments.replicas
    if replicas < 1 or (arguments.prompt_tokens is not None and arguments.prompt_tokens < 1):
        raise InputError("--replicas and --prompt-tokens are 1 or more")
    if arguments.instant:
        return _play(timing, candidate, arguments.json)
    from deployment.simulator.running import Fleet

    output = candidate["load"]["output_tokens"]
    fleet = Fleet(timing, plan["served_name"], output, replicas, _longest(candidate))
    return _serve(fleet, arguments)


def _plan(path: Path) -> dict[str, Any]:
    """The JSON of a plan."""
    file = path / "plan.json" if path.is_dir() else path
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
        _check_numbers(plan["candidate"])
        if not (plan["timing"] and isinstance(plan["served_name"], str)):
            raise ValueError("parts of it are empty")
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; give what `forge recommend --manifests DIR` wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: no plan ({error}); write it anew with `forge recommend --manifests`") from None
    return dict(plan)


def _longest(candidate: dict[str, Any]) -> Any:
    """Tokens of the longest request that the planned server takes."""
    return candidate["serving"]["max_context"] or candidate["model"]["context"]


def _check_numbers(candidate: dict[str, Any]) -> None:
    """Raise `ValueError` where a number that is worked with is none."""
    load = candidate["load"]
    whole = {name: load[name] for name in ("prompt_tokens", "output_tokens")} | {"replicas": candidate["replicas"]}
    whole["context"] = _longest(candidate)
    for name, value in whole.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}, not a whole number above 0")
    times = {name: candidate["estimate"][name]["value"] for name in ("ttft", "tpot")}
    rates = {name: load[name] for name in ("rate", "concurrency") if load[name] is not None}
    for name, value in (times | rates).items():
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value!r}, not a number")


def _play(timing: "Timing", candidate: dict[str, Any], as_json: bool) -> int:
    """The planned load of one replica, and what was predicted beside it."""
    from deployment.simulator.playing import played

    seen = played(timing, candidate["load"])
    predicted = {name: candidate["estimate"][name]["value"] for name in ("ttft", "tpot")}
    if as_json:
        print(json.dumps({"simulated": seen, "predicted": predicted}, indent=2))
        return 0
    for name, value in predicted.items():
        shown = ", ".join(f"{which} {seconds * 1e3:.4g}" for which, seconds in seen[name].items())
        print(f"{name.upper()} in ms: {shown}; predicted mean {value * 1e3:.4g}")
    return 0


def _serve(fleet: "Fleet", arguments: argparse.Namespace) -> int:
    """Until Ctrl-C or SIGTERM."""
    import logging
    from contextlib import closing, suppress

    import uvicorn

    from deployment.counting import counted
    from deployment.simulator.app import Server, make_app
    from flows.serve import BACKLOG, bound
    from flows.up import Stopped, stop_signals

    if not 0 <= arguments.port < 2**16:
        raise InputError(f"--port {arguments.port}: give a number from 0 (any free port) to 65535")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    app = make_app(fleet, arguments.prompt_tokens)
    config = uvicorn.Config(app, ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1)
    with closing(bound(arguments.host, arguments.port)) as listening, suppress(Stopped), stop_signals():
        listening.listen(BACKLOG)
        host, port = listening.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if arguments.json:
            print(json.dumps({"url": url, "model": fleet.model, "replicas": len(fleet.engines)}), flush=True)
        else:
            number = counted(len(fleet.engines), "replica")
            print(f"{fleet.model} is simulated at {url}/v1 ({number}); Ctrl-C ends it", flush=True)
        Server(config, fleet).run(sockets=[listening])
    return 0
