"""`forge recommend`: what to rent and how to serve on it, for a model or the best of the atlas; why, and why not else.

    forge recommend --use-case chat --users 500 --rank cost
    forge recommend --use-case rag --model Qwen/Qwen3-32B --budget 5000 --cloud aws --region us-east-1
    forge recommend --use-case chat --what-if traffic.users=2000 --what-if "slo.ttft_p95_ms=150 spot=true"
    forge recommend --report checkpoints/laptop --use-case extraction
    forge recommend --request team.yaml --manifests out/ --json        # with --rejected: every one
    forge recommend --explain

Exit codes: 0 something fits, 1 nothing does (the nearest misses are printed), 2 the question makes no sense.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.models_commands import number
from phases.errors import InputError

if TYPE_CHECKING:
    from deployment.planning.candidate import Recommendation
    from deployment.planning.own_agent import OwnAgent
    from deployment.planning.request import Request


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options; each that sets something of the request has the setting's dotted name as its destination."""
    _add_traffic(parser.add_argument_group("traffic and objectives (default: the use case's)"))
    _add_models(parser.add_argument_group("models"))
    _add_hardware(parser.add_argument_group("hardware, prices and engines"))
    answer = parser.add_argument_group("the answer")
    add = answer.add_argument
    text = "best first by cost, latency, quality, balance (default) or the PRD's score"
    add("--rank", choices=("cost", "latency", "quality", "balance", "score"), help=text)
    text = "ask again with KEY=VALUE (several parted by spaces) and put the answers side by side; repeat for more"
    add("--what-if", action="append", default=[], metavar="CHANGE", help=text)
    add("--top", type=_few, metavar="N", help="candidates that are shown (default: 5, with --json 50)")
    text = "solve every system, even those that another one beats for certain"
    add("--exhaustive", action="store_true", default=None, help=text)
    add("--rejected", action="store_true", help="list every rejected candidate with its number, not only the nearest")
    add("--explain", action="store_true", help="the PRDs' formulas beside the ones in force, model by model")
    add("--manifests", type=Path, metavar="DIR", help="also write everything that deploys the choice")
    text = "a request as YAML (lengths, objectives, weights of the score …); options go before it"
    add("--request", type=Path, metavar="FILE", help=text)
    add("--use-cases", action="store_true", help="list the use cases with their objectives and reasons, and stop")


def _add_traffic(group: Any) -> None:
    add = group.add_argument
    add("--use-case", dest="use_case", metavar="NAME", help="chat (default), rag, code_completion …: --use-cases")
    add("--users", dest="traffic.users", type=int, metavar="N", help="people or programs (default: 100)")
    text = "requests of each an hour"
    add("--requests-per-user", dest="traffic.requests_per_user_hour", type=float, metavar="N", help=text)
    add("--peak-factor", dest="traffic.peak_factor", type=float, metavar="F", help="peak over average (default: 3)")
    add("--rate", dest="traffic.rate", type=float, metavar="R", help="requests a second at the peak, instead")
    add("--prompt", type=_lengths, metavar="MEAN,P95", help="tokens of a prompt")
    add("--output", type=_lengths, metavar="MEAN,P95", help="tokens of an answer")
    add("--context", type=int, metavar="N", help="tokens of the longest request that is admitted")
    add("--prefix-cached", dest="prefix_cached", type=float, metavar="SHARE", help="of prompts that is in the cache")
    add("--ttft", dest="slo.ttft_p95_ms", type=float, metavar="MS", help="95th percentile of the time to first token")
    add("--tpot", dest="slo.tpot_p95_ms", type=float, metavar="MS", help="95th percentile of the time per token")
    add("--e2e", dest="slo.e2e_p95_s", type=float, metavar="S", help="95th percentile of the whole answer, seconds")


def _add_models(group: Any) -> None:
    add = group.add_argument
    add("--model", dest="models", action="append", metavar="NAME", help="of the atlas; repeat for more (default: all)")
    add("--report", type=Path, metavar="RUN", help="the agent of a forge's or a distillation's run instead")
    add("--task", metavar="NAME", help="only models published for it")
    add("--family", metavar="NAME", help="only this architecture")
    add("--max-parameters", dest="max_parameters", type=number, metavar="N", help="at most so many, e.g. 8B")
    text = "acceptable licence, or `permissive`; repeat for more (default: any)"
    add("--licence", "--license", dest="licences", action="append", metavar="ID", help=text)
    text = "a published score that has to be reached, e.g. MMLU-Pro=60"
    add("--min-quality", dest="quality", type=_quality, metavar="NAME=SCORE", help=text)


def _add_hardware(group: Any) -> None:
    add = group.add_argument
    text = "h100-sxm, l4, cpu …; repeat for more (default: all on offer)"
    add("--accelerator", "--gpu", dest="accelerators", action="append", metavar="NAME", help=text)
    add("--vendor", dest="vendors", action="append", metavar="NAME", help="nvidia, amd …; repeat for more")
    add("--cloud", dest="clouds", action="append", metavar="NAME", help="repeat for more (default: all)")
    add("--region", dest="regions", action="append", metavar="NAME", help="repeat for more (default: all)")
    add("--spot", action="store_true", default=None, help="also offers that can be taken away")
    add("--budget", dest="budget_per_month", type=float, metavar="USD", help="a month of 730 hours")
    add("--max-replicas", dest="max_replicas", type=int, metavar="N", help="at most so many (default: 256)")
    add("--engine", dest="engines", action="append", metavar="NAME", help="vllm (default), sglang, trtllm, tgi …")
    text = "stored, fp8 (default: both), bf16, int8, int4, nvfp4, mxfp4; repeat for more"
    add("--precision", dest="precisions", action="append", metavar="NAME", help=text)
    add("--kv-bits", dest="kv_bits", type=int, metavar="BITS", help="of keys and values: 16 (default) or 8")
    text = "tensor parallelism to try; repeat for more (default: 1, 2, 4, 8)"
    add("--tp", dest="tensor_parallel", type=int, action="append", metavar="N", help=text)
    text = "pipeline parallelism to try; repeat for more (default: 1)"
    add("--pp", dest="pipeline_parallel", type=int, action="append", metavar="N", help=text)
    text = "hold the objectives at the upper end of the 80 %% interval, not at the expected value"
    add("--cautious", action="store_true", default=None, help=text)


def recommend(arguments: argparse.Namespace) -> int:
    """Answer, and print or write what was asked for."""
    from deployment.planning import showing

    if arguments.use_cases:
        return _print(arguments.json, showing.use_cases_data, showing.use_cases_text)
    request, agent = _request(arguments), _agent(arguments)
    if arguments.explain:
        models, context = _explained(request, agent), request.workload().context
        return _print(
            arguments.json,
            lambda: showing.formulas_data(models, context),
            lambda: showing.formulas_text(models, context),
        )
    return _answer(arguments, request, agent)


def _answer(arguments: argparse.Namespace, request: "Request", agent: "OwnAgent | None") -> int:
    from deployment.planning import showing
    from deployment.planning.exporting import TOP, recommendation_data, what_if_data
    from deployment.planning.what_if import what_if

    alternatives = what_if(request, arguments.what_if, agent)
    answer = alternatives[0].recommendation
    written = _manifests(answer, arguments.manifests)
    if arguments.json:
        top = TOP if arguments.top is None else arguments.top
        data = recommendation_data(answer, top, arguments.rejected) | {"manifests": [str(path) for path in written]}
        if arguments.what_if:
            data["what_if"] = what_if_data(alternatives)
        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        print(showing.answer_text(answer, 5 if arguments.top is None else arguments.top, arguments.rejected))
        if arguments.what_if:
            print(f"\n{showing.what_if_text(alternatives)}")
        if written:
            names = ", ".join(str(path.relative_to(arguments.manifests)) for path in written)
            print(f"\nwritten to {arguments.manifests}: {names}")
    return 0 if answer.chosen else 1


def _manifests(answer: "Recommendation", folder: Path | None) -> list[Path]:
    if folder is None or answer.chosen is None:
        return []
    from deployment.manifests import bundle

    return bundle.write(answer, folder)


def _request(arguments: argparse.Namespace) -> "Request":
    """The file's settings, under those of the options."""
    from deployment.planning.request import Request
    from deployment.planning.what_if import put

    data = _file(arguments.request) if arguments.request else {}
    for key, value in vars(arguments).items():
        if value is not None and (key.partition(".")[0] in Request.model_fields):
            put(data, key.split("."), value)
    return Request.parse(data, str(arguments.request or "request"))


def _file(path: Path) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a request as YAML") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: a request is a mapping of settings, e.g. `use_case: chat`")
    return data


def _agent(arguments: argparse.Namespace) -> "OwnAgent | None":
    if arguments.report is None:
        return None
    if arguments.models:
        raise InputError("--report and --model do not go together; leave one out")
    from deployment.planning.own_agent import own_agent

    return own_agent(arguments.report)


def _explained(request: "Request", agent: "OwnAgent | None") -> Any:
    from deployment.planning.catalogue import chosen_models

    return (agent.model,) if agent else chosen_models(request)


def _print(as_json: bool, data: Callable[[], Any], text: Callable[[], str]) -> int:
    print(json.dumps(data(), indent=2, ensure_ascii=False) if as_json else text())
    return 0


def _few(text: str) -> int:
    """How many are shown."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}': give a whole number, 0 or more")
    return int(text)


def _lengths(text: str) -> dict[str, int]:
    """`1200,3000`: mean and 95th percentile; one number is both."""
    parts = text.split(",")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}': give MEAN or MEAN,P95 in tokens, e.g. 1200,3000")
    return {"mean": int(parts[0]), "p95": int(parts[-1])}


def _quality(text: str) -> dict[str, Any]:
    """`MMLU-Pro=60`."""
    name, _, score = text.rpartition("=")
    try:
        at_least = float(score)
    except ValueError:
        at_least = math.nan
    if not name or math.isnan(at_least):
        raise argparse.ArgumentTypeError(f"'{text}': give NAME=SCORE, e.g. MMLU-Pro=60")
    return {"benchmark": name, "at_least": at_least}
