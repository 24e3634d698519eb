"""The report of a run, put together from what became of its stages."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from evaluation.expert_size import expert_bytes
from evaluation.judgement import Judgement
from evaluation.latency import Latency, count_parameters, describe_agent, measure_latency
from evaluation.machine import describe_machine
from evaluation.report import (
    Agent,
    CheckpointEntry,
    PhaseReport,
    Report,
    data_sources,
    phase_report,
)
from evaluation.retention import TASKS
from evaluation.specialities import NAMES
from flows.console import duration, say
from flows.gating import Outcome
from flows.parameters import ForgeConfig
from phases.bitnet.run import PACKED
from phases.checkpoint import Checkpoint
from phases.compression.press import AGENT
from phases.dataset import Dataset
from phases.environment import code_version
from phases.storage import write_json

COMPRESSING = ("bitnet", "compression")
"""Phases whose parent is the model that retention is measured against."""


def summarise(
    config: ForgeConfig, started: str, seconds: float, data: Dataset, outcomes: Sequence[Outcome], agent: Agent | None
) -> Report:
    """The report. Phases of the chain that were not reached are `skipped`."""
    reached = [outcome.stage.phase.name for outcome in outcomes]
    skipped = [PhaseReport(phase=name, status="skipped") for name in config.chain if name not in reached]
    return Report(
        run=config.run,
        profile=config.profile,
        commit=code_version(),
        seed=config.seed,
        started=started,
        seconds=round(seconds, 1),
        machine=describe_machine(),
        data=data_sources(data.card),
        phases=(*(_entry(outcome) for outcome in outcomes), *skipped),
        agent=agent,
    )


def measure_agent(outcomes: Sequence[Outcome], folder: Path) -> Agent | None:
    """Size, memory and latency of what came out of the chain, in its smallest form; None when it was stopped.

    The latency is kept in `latency.json`, so that a rerun that changes nothing reports the same figures at once.
    """
    kept = outcomes[-1].kept
    if kept is None:
        return None
    # A packed form has no experts: of a design that chooses among them it is another, lesser agent.
    experts = expert_bytes(kept.path)
    packed = None if experts else kept.siblings.get(AGENT) or kept.siblings.get(PACKED)
    latency = _latency(packed or kept, folder / "latency.json")
    return describe_agent(kept, latency, packed, retention(outcomes), experts)


def _latency(shipped: Checkpoint, path: Path) -> Latency:
    """Measured once for a checkpoint."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or not whole
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["digest"] == shipped.digest:
            return Latency(**known["latency"])
    latency = measure_latency(shipped.path)
    write_json(path, {"digest": shipped.digest, "latency": asdict(latency)})
    return latency


def retention(outcomes: Sequence[Outcome]) -> float | None:
    """What the agent keeps: of its parent, as the compression phase judges it; without that phase, of the right answers
    of the model before it became ternary, mean of tasks, each 1 at most.

    Not measured where no compressing phase passed. All phases are judged on the same items.
    """
    passed = [outcome for outcome in outcomes if outcome.status == "passed"]
    compressed = next((outcome for outcome in passed if outcome.stage.phase.name in COMPRESSING), None)
    if compressed is None:
        return None
    before, after = compressed.judgement, passed[-1].judgement
    name = passed[-1].stage.phase.name
    judged = [metric.value for metric in after.metrics if metric.name == f"{name}/retention"]
    if judged:
        return judged[0]
    pairs = [(after.metric(f"{name}/{NAMES[t]}").value, before.metric(f"parent/{NAMES[t]}").value) for t in TASKS]
    shares = [min(1.0, ours / theirs) for ours, theirs in pairs if theirs]  # what was learnt since hides no loss
    return sum(shares) / len(shares) if shares else None


def _entry(outcome: Outcome) -> PhaseReport:
    shown = outcome.kept or outcome.made
    return phase_report(
        outcome.stage.phase.name,
        outcome.status,
        outcome.judgement,
        parameters=count_parameters(shown.path)[0],
        bytes_on_disk=shown.bytes_on_disk,
        seconds=outcome.seconds,
        checkpoint=_checkpoint(shown),
        parents=tuple(parent.digest for parent in outcome.stage.parents),
    )


def _checkpoint(checkpoint: Checkpoint) -> CheckpointEntry:
    return CheckpointEntry(path=str(checkpoint.path), digest=checkpoint.digest)


def gate_rows(judgement: Judgement) -> list[dict[str, str | float]]:
    """Gates as rows of a table."""
    return [
        {
            "gate": gate.name,
            "metric": gate.metric,
            "value": gate.value,
            "comparison": gate.comparison,
            "threshold": gate.threshold,
            "verdict": "passed" if gate.passed else "FAILED",
        }
        for gate in judgement.gates
    ]


def failed_gates(judgement: Judgement) -> str:
    """The gates that were not met, in one line."""
    missed = [f"{g.name} ({g.value:.4g}, wanted {g.comparison} {g.threshold:.4g})" for g in judgement.gates]
    return "; ".join(text for text, g in zip(missed, judgement.gates, strict=True) if not g.passed) or "no gates"


def announce(outcome: Outcome) -> None:
    """One line on stderr about what became of a stage."""
    name, took = outcome.stage.phase.name, outcome.seconds
    if outcome.status == "passed":
        gates = f"{len(outcome.judgement.gates)} gates"
        say(f"{name}: passed {gates}" + ("" if took is None else f"; the phase took {duration(took)}"))
    elif outcome.kept is not None:
        say(f"{name}: rolled back to {outcome.kept.path}; gates not met: {failed_gates(outcome.judgement)}")
    else:
        say(f"{name}: failed; gates not met: {failed_gates(outcome.judgement)}")


def approval_text(config: ForgeConfig, outcomes: Sequence[Outcome]) -> str:
    """Markdown over the form of the human gate: what would be promoted, and what its gates measured."""
    lines = [f"### Promote the agent of run `{config.run}` to champion of `{config.agent}`?", ""]
    for outcome in outcomes:
        lines.append(f"**{outcome.stage.phase.name}**: {outcome.status.replace('_', ' ')}")
        lines += [
            f"- {gate.name}: {gate.value:.4g} {gate.comparison} {gate.threshold:.4g} {'✓' if gate.passed else '✗'}"
            for gate in outcome.judgement.gates
        ]
        lines.append("")
    return "\n".join(lines)
