"""Results of load tests, read into what the physics predicts: a load, mean TTFT, mean TPOT.

- `vllm bench serve --save-result`: one object; `mean_tpot_ms` is (end-to-end − TTFT) / (tokens − 1), as here.
- GuideLLM: `benchmarks`, each with `config.strategy` and `metrics.*.successful.mean`; its `inter_token_latency_ms` is
  (last − first token) / (tokens − 1), TPOT as it is understood here. Its `time_per_output_token_ms` holds the first
  token too and is not used.

Formats as of vLLM 0.19 (`vllm/benchmarks/serve.py`) and GuideLLM 0.5 (`benchmark/schemas/generative`).
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment.serving import Load
from phases.errors import InputError

ARRIVING = ("constant", "poisson", "async")
"""GuideLLM's strategies that send at a rate whatever comes back."""


@dataclass(frozen=True, slots=True)
class Run:
    """One measured load. Seconds."""

    load: Load
    ttft: float
    tpot: float
    model: str
    """As the server was asked for; empty where the file does not say."""


def read_runs(path: Path, names: Collection[str] = ()) -> list[Run]:
    """All measured loads of a file. `names`: of the model that it is of; none: any.

    Raises InputError for a file that is neither format, measured nothing, or says that it measured another model.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON that can be read ({error})") from None
    try:
        if isinstance(content, Mapping) and "benchmarks" in content:
            runs = [_guidellm(entry, content) for entry in content["benchmarks"]]
        elif isinstance(content, Mapping) and "mean_ttft_ms" in content:
            runs = [_vllm(content)]
        else:
            raise InputError(f"{path}: neither GuideLLM's nor `vllm bench serve`'s results")
    except KeyError as error:
        raise InputError(f"{path}: a result without {error}") from None
    except (AttributeError, TypeError, ArithmeticError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: a result with a value that cannot be ({error})") from None
    if not runs:
        raise InputError(f"{path}: no benchmark in it: nothing was measured")
    known = {_last(name) for name in names}
    for run in runs:
        if known and run.model and _last(run.model) not in known:
            raise InputError(
                f"{path}: it measured {run.model!r}, not {next(iter(names))}; name that model, or give "
                f"--served-name {run.model} if the server calls it so"
            )
    return [_sound(run, path) for run in runs]


def _last(name: str) -> str:
    """What is left of a model's name whoever's hub or folder it is in."""
    return name.rstrip("/").rsplit("/", 1)[-1].lower()


def _vllm(content: Mapping[str, Any]) -> Run:
    count = content["completed"]
    prompt, output = content["total_input_tokens"] / count, content["total_output_tokens"] / count
    rate, most = content.get("request_rate"), content.get("max_concurrency")
    if rate is None or float(rate) == math.inf:
        load = Load(round(prompt), round(output), concurrency=float(count if most is None else most))
    else:
        load = Load(round(prompt), round(output), rate=float(content["request_throughput"]))
    return Run(load, content["mean_ttft_ms"] / 1e3, content["mean_tpot_ms"] / 1e3, str(content.get("model_id", "")))


def _guidellm(entry: Mapping[str, Any], report: Mapping[str, Any]) -> Run:
    metrics = entry["metrics"]

    def mean(name: str) -> float:
        return float(metrics[name]["successful"]["mean"])

    prompt, output = round(mean("prompt_token_count")), round(mean("output_token_count"))
    strategy = (entry.get("config") or entry.get("args") or {}).get("strategy") or {}
    if strategy.get("type_") in ARRIVING:
        load = Load(prompt, output, rate=mean("requests_per_second"))
    else:
        load = Load(prompt, output, concurrency=mean("request_concurrency"))
    model = ((entry.get("config") or {}).get("backend") or {}).get("model") or (report.get("args") or {}).get("model")
    return Run(load, mean("time_to_first_token_ms") / 1e3, mean("inter_token_latency_ms") / 1e3, str(model or ""))


def _sound(run: Run, path: Path) -> Run:
    figures = (run.ttft, run.tpot, run.load.concurrency or run.load.rate or 0.0)
    if not all(0 < figure < math.inf for figure in figures) or min(run.load.prompt_tokens, run.load.output_tokens) < 2:
        raise InputError(f"{path}: a result with TTFT {run.ttft} s and TPOT {run.tpot} s: nothing was measured")
    return run
