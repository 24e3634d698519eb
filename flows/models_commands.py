"""`forge models`: the atlas of open-weight models, one's own among them; and how good the physics is on a file.

forge models --task code --licence permissive --max-parameters 40B
forge models show Qwen/Qwen3-32B
forge models add config.json --name me/mine
forge models add checkpoints/laptop/compression
forge models add org/name
forge models validate benchmarks.csv --json
"""

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phases.errors import InputError

if TYPE_CHECKING:
    from deployment.model import LayerGroup, Model

ACTIONS = ("list", "show", "add", "validate")
_SUFFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    add = parser.add_argument
    add("action", nargs="?", default="list", choices=ACTIONS, help="(default: list)")
    text = "show: a model; add: a config.json, a folder or a hub id; validate: a file of measured points"
    add("what", nargs="?", metavar="WHAT", help=text)
    add("--task", metavar="TASK", help="that it is for: text, chat, code, tools, reasoning, vision")
    add("--licence", metavar="ID", help="exactly this one, or `permissive`")
    add("--family", metavar="TYPE", help="architecture: model_type of its config.json")
    add("--max-parameters", type=number, metavar="N", help="at most so many, e.g. 40B")
    add("--min-context", type=number, metavar="N", help="at least so many tokens, e.g. 128K")
    add("--name", metavar="NAME", help="of a model that is added (default: where it is from)")


def number(text: str) -> float:
    """`40B`, `1.5M`, `7e9`. Raises ArgumentTypeError for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:[eE]\d+)?)([KMBT]?)", text.strip(), re.IGNORECASE)
    value = float(found[1]) * _SUFFIXES[found[2].upper()] if found else math.inf
    if math.isinf(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number such as 40B or 131072")
    return value


def models(arguments: argparse.Namespace) -> int:
    """Do what was asked for and print it."""
    if arguments.action == "list":
        if arguments.what is not None:
            raise InputError(f"`forge models list` takes no {arguments.what!r}; did you mean `show {arguments.what}`?")
        _print(_listed(arguments), arguments.json, _as_table)
        return 0
    if not arguments.what:
        raise InputError(f"`forge models {arguments.action}` needs one thing more; see `forge models --help`")
    if arguments.action == "validate":
        from deployment.physics.validation import validate

        _print(validate(Path(arguments.what)), arguments.json, _as_lines)
    elif arguments.action == "add":
        from deployment.atlas import own

        added = own.add(arguments.what, name=arguments.name)
        _print(described(added) | {"kept in": str(own.file())}, arguments.json, _as_lines)
    else:
        from deployment.atlas import catalogue

        _print(described(catalogue.model(arguments.what)), arguments.json, _as_lines)
    return 0


def _listed(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from deployment.atlas import catalogue

    chosen = catalogue.select(
        catalogue.models(),
        task=arguments.task,
        licence=arguments.licence,
        family=arguments.family,
        max_parameters=arguments.max_parameters,
        min_context=None if arguments.min_context is None else int(arguments.min_context),
    )
    if not chosen:
        raise InputError("no model is all of that; leave a filter out")
    return [_row(model) for model in chosen]


def _row(model: "Model") -> dict[str, Any]:
    return {
        "name": model.name,
        "family": model.family,
        "parameters": model.parameters,
        "active": model.active_parameters,
        "bits": round(model.stored_bits, 2),
        "context": model.context,
        "licence": model.licence,
        "tasks": list(model.tasks),
    }


def described(model: "Model") -> dict[str, Any]:
    """A model with what it weighs and keeps, and the PRDs' formulas beside those in force."""
    from deployment.physics import keys_values, weights

    has_attention = any(group.mixer in ("attention", "latent") for group in model.layers)
    return {
        **_row(model),
        "layers": [
            {"count": g.count, "mixer": g.mixer, "window": g.window, "experts": g.experts} for g in model.layers
        ],
        "weights_bytes": weights.checkpoint_bytes(model),
        "weights_bytes_by_the_prd": weights.as_in_the_prd(model, "stored"),
        "kv_bytes_per_token": keys_values.bytes_per_token(model),
        "kv_bytes_first_token": keys_values.bytes_per_sequence(model, 1) - keys_values.state_bytes(model),
        "kv_bytes_per_token_by_the_prd": keys_values.as_in_the_prd(model) if has_attention else None,
        "kv_bytes_at_full_context": keys_values.bytes_per_sequence(model, model.context),
        "quality": [{"benchmark": q.benchmark, "score": q.score, "source": q.source} for q in model.quality],
        "source": model.source,
    }


def _layers(group: "LayerGroup") -> dict[str, Any]:
    told = {"count": group.count, "mixer": group.mixer, "window": group.window, "experts": group.experts}
    return {key: value for key, value in told.items() if value}


def _print(result: Any, as_json: bool, as_text: Any) -> None:
    print(json.dumps(result, indent=2, ensure_ascii=False) if as_json else as_text(result))


def _as_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'model':<50} {'parameters':>10} {'active':>8} {'bits':>5} {'context':>9}  {'licence':<24} tasks"]
    for row in rows:
        lines.append(
            f"{row['name']:<50} {_short(row['parameters']):>10} {_short(row['active']):>8} {row['bits']:>5} "
            f"{row['context']:>9}  {row['licence']:<24} {', '.join(row['tasks'])}"
        )
    return "\n".join([*lines, f"{len(rows)} models"])


def _as_lines(result: dict[str, Any]) -> str:
    return "\n".join(f"{key.replace('_', ' '):<32} {_value(key, value)}" for key, value in result.items())


def _value(key: str, value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(_entry(one) for one in value)
    if "bytes" in key and value is not None:
        return f"{value:,.0f} ({_short(value).replace('B', 'G')}B)"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _entry(one: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in one.items()) if isinstance(one, dict) else str(one)


def _short(value: float) -> str:
    """`8.03B`, `135M`."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= 0.9995 * size:  # 999,886,000 is 1B
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"
