"""Tables and metrics of forge training: its stages, the closed loop, dreams, self-knowledge, and how complex it is."""

from collections.abc import Mapping
from typing import Any

import torch

from evaluation.judgement import Cell, Table
from evaluation.metric import Metric
from phases.forge.chaos import lyapunov_exponent
from phases.forge.complexity import activation_rank, matrices, mean_rank, weight_width
from phases.forge.history import History

POWER = 4
"""Iterations towards the direction that grows most."""
ROWS = 8
"""Text blocks whose hidden states are looked at."""


def stage_table(history: History) -> Table:
    """A row a stage: steps, and validation at its entry and exit."""
    rows: list[tuple[Cell, ...]] = []
    for record in history.stages:
        best = " (best)" if record.name == history.best else ""
        verdict = "left out" if not record.steps else "taken back" if record.taken_back else f"kept{best}"
        pairs = zip(record.entry.model_dump().values(), record.exit.model_dump().values(), strict=True)
        rows.append((record.name, record.steps, verdict, *(value for pair in pairs for value in pair)))
    names = ("text, nats", "answers, nats", "reasoning", "memory")
    columns = ("stage", "steps", "verdict", *(f"{name} {end}" for name in names for end in ("in", "out")))
    return Table(title="Stages, on validation data at entry and exit", columns=columns, rows=tuple(rows))


def dream_table(history: History) -> dict[str, Table]:
    """A row a cycle of dreams; nothing where there was none."""
    rows: list[tuple[Cell, ...]] = []
    for record in history.stages:
        cycle = record.dreams
        if cycle is not None:
            refused = ", ".join(f"{reason} {count}" for reason, count in sorted(cycle.refused.items())) or "none"
            by = ", ".join(f"{t}: {share:.0%}" for t, share in cycle.valid_by_temperature.items())
            counts = (cycle.written, cycle.valid, cycle.kept, cycle.used)
            rows.append((record.name, *counts, cycle.floor or refused, by, cycle.diversity))
    columns = ("stage", "written", "valid", "kept", "used", "refused", "valid by temperature", "diversity")
    return {"dreams": Table(title="Dreams", columns=columns, rows=tuple(rows))} if rows else {}


def loop_table(history: History) -> dict[str, Table]:
    """A row a task and stage: success and difficulty as the stage ended; the exponent; nothing without a loop."""
    rows: list[tuple[Cell, ...]] = []
    for record in history.stages:
        loop = record.loop
        if loop is not None:
            held = loop.held / loop.steps if loop.steps else None
            for task, difficulty in loop.difficulty.items():
                rows.append((record.name, task, loop.success[task], difficulty, None, None, None, None, None))
            whole = (held, loop.exponent, loop.reference, loop.rate, loop.noise)
            rows.append((record.name, "all items asked", loop.overall, None, *whole))
    columns = ("stage", "task", "success", "difficulty", "steps in band", "exponent", "wanted", "rate", "noise")
    return (
        {"loop": Table(title="The closed loop as each stage ended", columns=columns, rows=tuple(rows))} if rows else {}
    )


def dream_metrics(history: History) -> list[Metric]:
    """Dreams written, kept and used in the stages that were not taken back; none where nothing dreamt."""
    cycles = [record.dreams for record in history.stages if record.dreams is not None and not record.taken_back]
    counts = {
        "written": sum(cycle.written for cycle in cycles),
        "kept": sum(cycle.kept for cycle in cycles),
        "used": sum(cycle.used for cycle in cycles),
    }
    return [
        Metric(name=f"forge/dreams_{name}", split="train", value=count, n=len(cycles), unit="dreams")
        for name, count in counts.items()
        if cycles
    ]


def self_metrics(history: History) -> list[Metric]:
    """R² of the head against copying, and recognition against chance; none where it did not learn about itself."""
    known = history.self_knowledge
    if known is None:
        return []
    found = {"self_r2": known.r2, "self_r2_of_copy": known.copy_r2, "self_r2_of_scaled_copy": known.scaled_copy_r2}
    metrics = [
        Metric(name=f"forge/{name}", split="validation", value=value, n=known.rows, unit="of variance")
        for name, value in found.items()
    ]
    spread = ("forge/self_target_variance", known.target_variance)
    metrics.append(Metric(name=spread[0], split="validation", value=spread[1], n=known.rows, unit="squared state"))
    told = {"recognised": (known.recognised, known.recognised_stderr), "by_chance": (known.chance, None)}
    for name, (value, error) in told.items():
        if value is not None:
            title, unit = f"forge/own_texts_{name}", "share of texts"
            metrics.append(Metric(name=title, split="validation", value=value, stderr=error, n=known.texts, unit=unit))
    return metrics


def complexity_table(models: Mapping[str, Any], text_NT: torch.Tensor) -> Table:
    """A row a model: width of its weights, rank of its matrices and last states, and exponents.

    Of a random direction and, sharpened by power iterations, of the one that grows most.
    """
    rows: list[tuple[Cell, ...]] = []
    for name, model in models.items():
        width = weight_width(matrices(model)["all"])
        inner = mean_rank(matrices(model)["layers"])
        with torch.no_grad():
            hidden = model.base_model(input_ids=text_NT[:ROWS, :-1], use_cache=False).last_hidden_state.flatten(0, 1)
        rank = activation_rank(hidden) / hidden.shape[-1]
        exponents = [lyapunov_exponent(model, text_NT[:2, :-1], directions=2, power=n, seed=0) for n in (0, POWER)]
        cells = [cell for found in exponents for cell in (found.value, found.stderr)]
        rows.append((name, width.deviation, width.interdecile, inner, rank, *cells))
    sizes = ("deviation / mean |w|", "interdecile / mean |w|", "rank of matrices", "rank of hidden states")
    columns = ("model", *sizes, "exponent", "exponent ±", "largest exponent", "largest exponent ±")
    title = "Width of the weights, effective rank as a share of full, Lyapunov exponent (nats a layer)"
    return Table(title=title, columns=columns, rows=tuple(rows))
