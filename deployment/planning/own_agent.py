"""A forge's or a distillation's result as a model to plan for: what its report says, and nothing that it does not.

    forge recommend --report checkpoints/laptop

The report has the parameters, the bytes, the retention (measured quality) and, on a CPU, the measured time per token
and peak memory; the checkpoint's config.json has the layers. On accelerators the agent is a model like any other. On
CPUs there is no fitted physics to trust: the measured time per token is the basis, of the machine it was measured on.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deployment.atlas.reading import read_config
from deployment.model import Model, Quality
from deployment.planning.score import OWN
from phases.errors import InputError

FILE = "report.json"
RETENTION = "retention"


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on a CPU, and where."""

    seconds_per_token: float
    """Median of one generated token, one request at a time."""
    seconds_per_prompt_token: float
    """Median of a prompt that is read in one pass, by its tokens."""
    peak_bytes: int
    """Resident memory of the process at its peak."""
    bytes_on_disk: int
    cores: int
    machine: str
    """In words."""


@dataclass(frozen=True, slots=True)
class OwnAgent:
    """The agent of one run."""

    model: Model
    measured: Measured | None
    """None: its latency was not measured."""


def own_agent(path: Path) -> OwnAgent:
    """Read the report of a run (its folder, or the file).

    Raises InputError where there is no report, no agent in it, or no config.json beside the agent's weights.
    """
    file = path / FILE if path.is_dir() else path
    report = _json(file, "give the folder of a run, or its report.json")
    agent = report.get("agent")
    if not isinstance(agent, Mapping) or not isinstance(agent.get("path"), str):
        raise InputError(f"{file}: it reports no agent, so there is nothing to plan for; let the run finish")
    folder = _folder(file, agent["path"])
    model = read_config(_json(folder / "config.json", "the report names this folder as the agent's"), str(folder))
    quality = _retention(agent, file)
    return OwnAgent(
        replace(model, licence=OWN, quality=quality, source=str(file)), _measured(agent, report.get("machine"), file)
    )


def _folder(file: Path, said: str) -> Path:
    """Where the agent is: as the report says, or where it is when the run's folder was moved."""
    moved = file.parent / Path(said).name
    return moved if moved.is_dir() else Path(said)


def _retention(agent: Mapping[str, Any], file: Path) -> tuple[Quality, ...]:
    share = agent.get("retention")
    return (Quality(RETENTION, 100 * _number(share, "agent.retention", file), str(file)),) if share is not None else ()


def _measured(agent: Mapping[str, Any], machine: object, file: Path) -> Measured | None:
    """The CPU's measurement; None unless times and memory were taken."""
    milliseconds, peak = agent.get("latency_ms_per_token_p50"), agent.get("peak_rss_bytes")
    reading = agent.get("prompt_ms_per_token_p50")
    if milliseconds is None or reading is None or peak is None or not isinstance(machine, Mapping):
        return None
    cores = max(1, int(_number(machine.get("cores"), "machine.cores", file)))
    where = f"{machine.get('cpu', 'a CPU')}, {cores} cores"
    return Measured(
        seconds_per_token=_number(milliseconds, "agent.latency_ms_per_token_p50", file) / 1e3,
        seconds_per_prompt_token=_number(reading, "agent.prompt_ms_per_token_p50", file) / 1e3,
        peak_bytes=int(_number(peak, "agent.peak_rss_bytes", file)),
        bytes_on_disk=int(_number(agent.get("bytes_on_disk"), "agent.bytes_on_disk", file)),
        cores=cores,
        machine=where,
    )


def _number(value: object, name: str, file: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise InputError(f"{file}: {name} is {value!r}, not a number above 0; write the report again (`forge report`)")
    return float(value)


def _json(file: Path, hint: str) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; {hint}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{file}: it holds no JSON object; {hint}")
    return data
