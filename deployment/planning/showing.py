"""A recommendation as text for a terminal: the choice, the others, the front, what was rejected by which constraint."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from deployment.model import Model
from deployment.planning import prd_formulas
from deployment.planning.candidate import Candidate, Recommendation
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
    "USD/Mtok",
    "TTFT p95",
    "TPOT p95",
    "E2E p95",
    "quality",
    "score",
]
FORMULAS = "model|KV B/token, PRD|first|error|at {}|error|weights GiB, PRD|in force|why the cache differs"


def answer_text(answer: Recommendation, top: int, every_rejection: bool) -> str:
    """The whole answer."""
    parts = [_question(answer.workload)]
    if answer.chosen:
        parts += [_choice(answer.chosen), table(COLUMNS, [_row(c) for c in answer.candidates[:top]])]
        names = [f"{c.system}: {c.cost_per_month:,.0f} USD a month, E2E {c.e2e_p95:.2f} s" for c in answer.pareto[:top]]
        parts.append("\n".join(["Pareto front (cost, latency, quality), cheapest first:", *_listed(names)]))
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


def _question(workload: Workload) -> str:
    rate = f"{workload.peak_rate:.3g} requests/s at the peak, {workload.average_rate:.3g} on average"
    lengths = f"prompt {workload.prompt.mean} (p95 {workload.prompt.p95}), answer {workload.output.mean}"
    return f"{workload.use_case}: {rate}; {lengths} (p95 {workload.output.p95}) tokens; {_objectives(workload.slo)}"


def _objectives(slo: Slo) -> str:
    named = {"TTFT": (slo.ttft_p95_ms, "ms"), "TPOT": (slo.tpot_p95_ms, "ms"), "E2E": (slo.e2e_p95_s, "s")}
    said = [f"{name} ≤ {value:g} {unit}" for name, (value, unit) in named.items() if value is not None]
    return "p95 " + ", ".join(said) if said else "no objective"


def _choice(chosen: Candidate) -> str:
    """The choice with its certainty, its memory and where a token's time goes."""
    estimate, memory = chosen.estimate, chosen.estimate.memory
    gib = {name: f"{size / 2**30:.1f}" for name, size in asdict(memory).items()}
    parts = sorted(estimate.parts.items(), key=lambda part: -part[1])
    steps = ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in parts if seconds > 0)
    lines = [
        f"mean TTFT {_figure(estimate.ttft)}; TPOT {_figure(estimate.tpot)}, floor {estimate.floor_tpot * 1e3:.2f} ms",
        f"memory, GiB: weights {gib['weights']}, activation {gib['activation']}, other {gib['non_torch']}, "
        f"KV pool {gib['kv_pool']} ({gib['kv_per_sequence']} for the longest request)",
        f"one decoding step, ms: {steps}" if steps else "",
        *chosen.notes,
    ]
    rented = f"{chosen.rented} at {chosen.offer.price:.2f} USD/h ({chosen.offer.date})"
    return "\n".join([f"{chosen.replicas} × {chosen.system} on {rented}", *_listed(filter(None, lines))])


def _figure(figure: Figure) -> str:
    low, value, high = (seconds * 1e3 for seconds in (figure.low, figure.value, figure.high))
    interval = f" ({low:.1f} to {high:.1f}, 80 %)" if high > low else ""
    return f"{value:.1f} ms{interval}, {figure.provenance}"


def _row(c: Candidate) -> list[str]:
    quality = f"{c.quality.score:g} {c.quality.benchmark}" if c.quality else "–"
    latencies = [f"{c.ttft_p95 * 1e3:.0f} ms", f"{c.tpot_p95 * 1e3:.1f} ms", f"{c.e2e_p95:.1f} s"]
    costs = [f"{c.cost_per_month:,.0f}", f"{c.cost_per_million_tokens:.2f}"]
    return [c.system, str(c.replicas), c.rented, *costs, *latencies, quality, f"{c.score:.1f}"]


def _rejected(answer: Recommendation, every: bool) -> str:
    found = kinds(answer.rejections, 1)
    said = ", ".join(f"{kind.constraint} {kind.count}" for kind in found) or "none"
    lines = [f"Rejected {len(answer.rejections)}: {said}"]
    if every:
        return "\n".join([*lines, *_listed(map(str, answer.rejections))])
    if answer.chosen is None:  # the nearest are listed above
        return lines[0]
    return "\n".join([*lines, *_listed(f"nearest by {kind.constraint}: {kind.nearest[0]}" for kind in found)])


def _listed(lines: Iterable[str]) -> list[str]:
    return [f"  - {line}" for line in lines]
