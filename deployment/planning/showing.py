"""A recommendation as text for a terminal: the choice, the others, the front, what was rejected by which constraint."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from deployment.model import Model
from deployment.planning import prd_formulas
from deployment.planning.candidate import Candidate, Recommendation
from deployment.planning.digits import duration, number, rate, size, times
from deployment.planning.nearest import kinds
from deployment.planning.traffic import Slo, Workload
from deployment.planning.use_cases import use_cases
from deployment.planning.what_if import Alternative, rows
from deployment.serving import Figure

COLUMNS = [
    "system",
    "replicas",
    "rented",
    "USD/month",
    "USD/Mtok out",
    "TTFT p95",
    "TPOT p95",
    "E2E p95",
    "quality",
    "score",
]
COSTS = "USD/Mtok out: per million output tokens at the average load"
NEGLIGIBLE = 5e-6
"""Seconds of a decoding step that are not shown: 0.00 ms says nothing."""
FORMULAS = "model|KV B/token, PRD|first|error|at {}|error|weights GiB, PRD|in force|why the cache differs"


def answer_text(answer: Recommendation, top: int, every_rejection: bool) -> str:
    """The whole answer."""
    parts = [_question(answer.workload)]
    if answer.chosen:
        parts += [_choice(answer.chosen), *_best(answer, top), *_front(answer.pareto, top)]
    else:
        parts.append("\n".join(["Nothing fits. Nearest misses:", *_listed(map(str, answer.nearest))]))
    parts.append(_rejected(answer, every_rejection))
    if answer.notes:
        parts.append("\n".join(_listed(answer.notes)))
    return "\n\n".join(parts)


def what_if_text(alternatives: Sequence[Alternative]) -> str:
    """The alternatives side by side."""
    header = ["", *(one.name for one in alternatives)]
    return table(header, [[name, *cells] for name, cells in rows(alternatives)])


def formulas_text(models: Iterable[Model], context: int) -> str:
    """The PRDs' formulas beside those in force; the lesson is `prd_formulas`'s own text."""
    lesson = (prd_formulas.__doc__ or "").strip()
    return f"{lesson}\n\n{table(FORMULAS.format(context).split('|'), prd_formulas.table(models, context))}"


def formulas_data(models: Iterable[Model], context: int) -> list[dict[str, Any]]:
    """The same as data."""
    compared = (prd_formulas.compare(model, context) for model in models)
    return [asdict(one) | {"first_error": one.first_error, "error": one.error} for one in compared]


def use_cases_text() -> str:
    """Every use case: lengths, objectives, reasons."""
    parts = []
    for name, case in use_cases().items():
        lengths = (
            f"prompt {case.prompt.mean} (p95 {case.prompt.p95}), answer {case.output.mean} (p95 {case.output.p95})"
        )
        reasons = [f"{key}: {text}" for key, text in case.reasons.model_dump().items()]
        parts.append("\n".join([f"{name}: {case.title}", f"  {lengths}; {_objectives(case.slo)}", *_listed(reasons)]))
    return "\n\n".join(parts)


def use_cases_data() -> dict[str, Any]:
    """The same as data."""
    return {name: case.model_dump(mode="json") for name, case in use_cases().items()}


def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    lines = [list(header), *(list(row) for row in body)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _best(answer: Recommendation, top: int) -> list[str]:
    """The first of the candidates as a table, under how many there are; nothing where none is to be shown."""
    if not top:
        return []
    heading = f"Best first by {answer.request.rank}, {_of(top, len(answer.candidates))} ({COSTS}):"
    return ["\n".join([heading, table(COLUMNS, [_row(c) for c in answer.candidates[:top]])])]


def _front(front: Sequence[Candidate], top: int) -> list[str]:
    """The first of the Pareto front, under how many there are."""
    if not top:
        return []
    heading = f"Pareto front (cost, latency, quality), cheapest first, {_of(top, len(front))}:"
    names = [f"{c.system}: {c.cost_per_month:,.0f} USD a month, E2E {number(c.e2e_p95)} s" for c in front[:top]]
    return ["\n".join([heading, *_listed(names)])]


def _of(shown: int, there: int) -> str:
    """`5 of 56`, `all 3`."""
    if there == 1:
        return "the only one"
    return f"{shown:,} of {there:,}" if shown < there else f"all {there:,}"


def _question(workload: Workload) -> str:
    asked = f"{rate(workload.peak_rate)} at the peak, {number(workload.average_rate)} on average"
    lengths = f"prompt {workload.prompt.mean} (p95 {workload.prompt.p95}), answer {workload.output.mean}"
    return f"{workload.use_case}: {asked}; {lengths} (p95 {workload.output.p95}) tokens; {_objectives(workload.slo)}"


def _objectives(slo: Slo) -> str:
    named = {"TTFT": (slo.ttft_p95_ms, "ms"), "TPOT": (slo.tpot_p95_ms, "ms"), "E2E": (slo.e2e_p95_s, "s")}
    said = [f"{name} ≤ {value:g} {unit}" for name, (value, unit) in named.items() if value is not None]
    return "p95 " + ", ".join(said) if said else "no objective"


def _choice(chosen: Candidate) -> str:
    """The choice with its certainty, its memory and where a token's time goes."""
    estimate, memory = chosen.estimate, chosen.estimate.memory
    parts = sorted(estimate.parts.items(), key=lambda part: -part[1])
    steps = ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in parts if seconds >= NEGLIGIBLE)
    floor = f", floor {duration(estimate.floor_tpot)}" if estimate.floor_tpot else ""
    held = {"weights": memory.weights, "activation": memory.activation, "other": memory.non_torch}
    sizes = ", ".join(f"{name} {size(held_bytes)}" for name, held_bytes in held.items() if held_bytes)
    lines = [
        f"mean TTFT {_figure(estimate.ttft)}; TPOT {_figure(estimate.tpot)}{floor}",
        f"memory: {sizes}, KV pool {size(memory.kv_pool)} ({size(memory.kv_per_sequence)} for the longest request)",
        f"one decoding step, ms: {steps}" if steps else "",
        *chosen.notes,
    ]
    each = " each" if chosen.instances > 1 else ""
    rented = f"{chosen.rented} at {chosen.offer.price:.4g} USD/h{each} ({chosen.offer.date})"
    return "\n".join([f"{chosen.replicas} × {chosen.system} on {rented}", *_listed(filter(None, lines))])


def _figure(figure: Figure) -> str:
    (value, low, high), unit = times(figure.value, figure.low, figure.high)
    interval = f" ({low} to {high}, 80 %)" if figure.high > figure.low else ""
    return f"{value} {unit}{interval}, {figure.provenance}"


def _row(c: Candidate) -> list[str]:
    quality = f"{c.quality.score:g} {c.quality.benchmark}" if c.quality else "–"
    latencies = [duration(c.ttft_p95), duration(c.tpot_p95), f"{number(c.e2e_p95)} s"]
    costs = [f"{c.cost_per_month:,.0f}", f"{c.cost_per_million_tokens:,.2f}"]
    return [c.system, f"{c.replicas:,}", c.rented, *costs, *latencies, quality, f"{c.score:.1f}"]


def _rejected(answer: Recommendation, every: bool) -> str:
    found = kinds(answer.rejections, 1)
    said = ", ".join(f"{kind.constraint} {kind.count:,}" for kind in found) or "none"
    lines = [f"Rejected {len(answer.rejections):,}: {said}"]
    if every:
        return "\n".join([*lines, *_listed(map(str, answer.rejections))])
    if answer.chosen is None:  # the nearest are listed above
        return lines[0]
    return "\n".join([*lines, *_listed(f"nearest by {kind.constraint}: {kind.nearest[0]}" for kind in found)])


def _listed(lines: Iterable[str]) -> list[str]:
    return [f"  - {line}" for line in lines]
