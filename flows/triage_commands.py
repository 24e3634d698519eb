"""`forge triage`: prompt, retrieve, a bigger model, fine-tune, distil, merge or forge? Ranked, with reasons and costs.

    forge triage --model Qwen/Qwen3-8B --accelerator l40s --requests-per-day 50000 --prompt 800 --output 200
    forge triage need.yaml --model Qwen/Qwen3-8B --accelerator l40s --bigger Qwen/Qwen3-32B --student Qwen/Qwen3-1.7B

A file has the settings of the need (`deployment/triage/need.py`); options lie over it. Costs come from the physics and
from the cheapest instances on demand that hold the replicas, unless `--price` is given.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phases.errors import InputError

if TYPE_CHECKING:
    from deployment.hardware import Offer
    from deployment.triage.need import Means, Need

NEEDED = {"requests_per_day": "--requests-per-day", "prompt_tokens": "--prompt", "output_tokens": "--output"}
"""Settings without a default, and their options."""
OPTIONS = {
    "gap": (str, "what is lacking: format, style, skill (default) or knowledge"),
    "gap_points": (float, "points of the score that are missing (default: 10); 0: only cost or latency is wrong"),
    "knowledge_changes": (str, "never (default), monthly or daily"),
    "examples": (int, "labelled examples that you have"),
    "unlabelled": (int, "real inputs without an answer"),
    "requests_per_day": (float, "how many are answered"),
    "latency_goal_s": (float, "seconds of a whole answer"),
    "monthly_budget": (float, "USD, for serving"),
    "horizon_months": (int, "over which one-off costs are spread (default: 12)"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options; those of the need have its settings' names."""
    add = parser.add_argument
    add("file", nargs="?", type=Path, metavar="NEED", help="YAML with settings of the need")
    add("--model", required=True, metavar="NAME", help="the present one")
    add("--accelerator", "--gpu", required=True, metavar="NAME", help="what is rented")
    add("--price", type=float, metavar="USD", help="of one and an hour (default: of the cheapest instances on demand)")
    add("--bigger", metavar="NAME", help="a model that meets the goal, or comes closer")
    add("--student", metavar="NAME", help="a smaller one that could learn")
    add("--agent", metavar="NAME", help="one of the shape that the forge would train, e.g. of an earlier run")
    add("--siblings", type=int, default=0, metavar="N", help="further models of the same base that are good at it")
    add("--prompt", dest="prompt_tokens", type=int, metavar="N", help="tokens of a prompt")
    add("--output", dest="output_tokens", type=int, metavar="N", help="tokens of an answer")
    for name, (kind, text) in OPTIONS.items():
        add(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=text)
    add("--sources", action="store_true", default=None, help="answers must quote documents")
    add("--narrow", action="store_true", default=None, help="one task with alike inputs")


def triage(arguments: argparse.Namespace) -> int:
    """Rank the ways and print why; 1 where none of them meets the need."""
    from deployment.triage.decision import triage as decide

    decision = decide(_need(arguments), _means(arguments))
    if arguments.json:
        shown: dict[str, Any] = {"best": decision.best.way if decision.best else None, "notes": list(decision.notes)}
        shown |= {"need": decision.need.model_dump(mode="json"), "options": [asdict(one) for one in decision.options]}
        print(json.dumps(shown, indent=2, default=str))
    else:
        print(decision.text())
    return 0 if decision.best else 1


def _need(arguments: argparse.Namespace) -> "Need":
    import yaml

    from deployment.triage.need import Need

    given: dict[str, Any] = {}
    if arguments.file is not None:
        try:
            given = yaml.safe_load(arguments.file.read_text("utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{arguments.file}: cannot be read as YAML ({' '.join(str(error).split())})") from None
        if not isinstance(given, dict):
            raise InputError(f"{arguments.file}: a need is a mapping of settings, e.g. `requests_per_day: 50000`")
    over = {key: getattr(arguments, key, None) for key in Need.model_fields}
    settings = {**given, **{key: value for key, value in over.items() if value is not None}}
    missing = [option for key, option in NEEDED.items() if key not in settings]
    if missing:
        raise InputError(f"the traffic is not said: give {', '.join(missing)}, or a file with all settings")
    return Need.parse(settings, "need")


def _means(arguments: argparse.Namespace) -> "Means":
    from deployment import accelerator, find_model
    from deployment.triage.need import Means

    place = accelerator(arguments.accelerator)
    found = _offers(place.name) if arguments.price is None else ()
    return Means(
        model=find_model(arguments.model),
        accelerator=place,
        price_per_hour=found[0].price_per_accelerator if found else arguments.price,
        offers=found,
        bigger=None if arguments.bigger is None else find_model(arguments.bigger),
        student=None if arguments.student is None else find_model(arguments.student),
        agent=None if arguments.agent is None else find_model(arguments.agent),
        siblings=arguments.siblings,
    )


def _offers(name: str) -> "tuple[Offer, ...]":
    """On demand and in USD, as all costs are; cheapest per accelerator first."""
    from deployment import offers

    found = tuple(one for one in offers(accelerators=[name], spot=False) if one.currency == "USD" and one.price > 0)
    if not found:
        raise InputError(f"{name}: no offer on demand is known; give its --price")
    return found
