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
            runs = [_guidellm(_object(entry, "benchmark"), content) for entry in _listed(content, "benchmarks")]
        elif isinstance(content, Mapping) and "mean_ttft_ms" in content:
            runs = [_vllm(content)]
        else:
            raise InputError(f"{path}: neither GuideLLM's nor `vllm bench serve`'s results")
    except _Unreadable as error:
        raise InputError(f"{path}: a result {error}") from None
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


class _Unreadable(Exception):
    """What is wrong with a result, as the end of a sentence."""


def _listed(entry: Mapping[str, Any], name: str) -> list[Any]:
    found = entry[name]
    if not isinstance(found, list):
        raise _Unreadable(f"whose {name} is no list")
    return found


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _Unreadable(f"whose {name} is {value!r}, not an object")
    return value


def _inside(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object that may be left out."""
    return _object(entry.get(name) or {}, name)


def _number(entry: Mapping[str, Any], *way: str) -> float:
    """What is found on the way into an object; finite."""
    value: Any = entry
    for depth, name in enumerate(way):
        value = _object(value, ".".join(way[:depth]))
        if name not in value:
            raise _Unreadable(f"without {'.'.join(way)}")
        value = value[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Unreadable(f"whose {'.'.join(way)} is {value!r}, not a number")
    return float(value)


def _last(name: str) -> str:
    """What is left of a model's name whoever's hub or folder it is in."""
    return name.rstrip("/").rsplit("/", 1)[-1].lower()


def _vllm(content: Mapping[str, Any]) -> Run:
    count = _number(content, "completed")
    if count < 1:
        raise _Unreadable(f"whose completed is {count:g}: no request was answered")
    prompt, output = (round(_number(content, f"total_{name}_tokens") / count) for name in ("input", "output"))
    if content.get("request_rate") in (None, "inf", math.inf):  # all at once
        most = content.get("max_concurrency")
        load = Load(prompt, output, concurrency=count if most is None else _number(content, "max_concurrency"))
    else:
        _number(content, "request_rate")  # as it was asked for: what was really sent counts
        load = Load(prompt, output, rate=_number(content, "request_throughput"))
    ttft, tpot = (_number(content, f"mean_{name}_ms") / 1e3 for name in ("ttft", "tpot"))
    return Run(load, ttft, tpot, str(content.get("model_id", "")))


def _guidellm(entry: Mapping[str, Any], report: Mapping[str, Any]) -> Run:
    def mean(name: str) -> float:
        return _number(entry, "metrics", name, "successful", "mean")

    prompt, output = round(mean("prompt_token_count")), round(mean("output_token_count"))
    strategy = _inside(_inside(entry, "config") or _inside(entry, "args"), "strategy")
    if strategy.get("type_") in ARRIVING:
        load = Load(prompt, output, rate=mean("requests_per_second"))
    else:
        load = Load(prompt, output, concurrency=mean("request_concurrency"))
    model = _inside(_inside(entry, "config"), "backend").get("model") or _inside(report, "args").get("model")
    return Run(load, mean("time_to_first_token_ms") / 1e3, mean("inter_token_latency_ms") / 1e3, str(model or ""))


def _sound(run: Run, path: Path) -> Run:
    figures = (run.ttft, run.tpot, run.load.concurrency or run.load.rate or 0.0)
    if not all(0 < figure < math.inf for figure in figures) or min(run.load.prompt_tokens, run.load.output_tokens) < 2:
        raise InputError(f"{path}: a result with TTFT {run.ttft} s and TPOT {run.tpot} s: nothing was measured")
    return run
