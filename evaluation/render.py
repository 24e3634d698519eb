"""A report for people: Markdown for the file, aligned text of at most 110 columns for the terminal."""

import math
from collections.abc import Iterable, Sequence

from evaluation.judgement import Cell, Table
from evaluation.metric import Control, Gate, Metric
from evaluation.report import PhaseReport, Report

NOT_MEASURED = "not measured"
WIDTH = 110
Rows = Sequence[Sequence[str]]


def number(value: Cell) -> str:
    """Four significant digits; thousands marked; None is not measured."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (abs(value) >= 1000 and float(value).is_integer()):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def with_error(value: float, stderr: float | None) -> str:
    """`value ± standard error`, the error to two digits and the value to as many places."""
    if not stderr:
        return number(value) if stderr is None else f"{number(value)} ± 0"
    places = 1 - math.floor(math.log10(stderr))
    if not 0 < places <= 8:
        return f"{number(value)} ± {number(stderr)}"
    return f"{value:.{places}f} ± {stderr:.{places}f}"


def render_markdown(report: Report) -> str:
    """The whole report."""
    parts = [f"# Run `{report.run}`", _run_lines(report), "## Data", _data(report)]
    for phase in report.phases:
        parts += _phase_sections(phase)
    agent = _agent_rows(report)
    parts += ["## Agent", markdown_table(("", ""), agent) if agent else NOT_MEASURED]
    recommendation = report.recommendation
    lines = [f"- {key}: {value}" for key, value in (recommendation or {}).items()]
    parts += ["## Recommendation", "\n".join(lines) or NOT_MEASURED]
    return "\n\n".join(parts) + "\n"


def render_table(report: Report) -> str:
    """The terminal's summary: phases, gates, controls, the matrix, the agent."""
    parts = [f"run {report.run} · profile {report.profile} · seed {report.seed} · {report.seconds:.0f} s"]
    summary = [
        (p.phase, p.status, number(p.parameters), number(p.bytes_on_disk), number(p.seconds)) for p in report.phases
    ]
    parts.append(text_table(("phase", "status", "parameters", "bytes", "seconds"), summary))
    for phase in report.phases:
        if phase.gates:
            parts.append(text_table((f"{phase.phase}: gate", "value", "", "threshold", ""), gate_rows(phase.gates)))
        if phase.controls:
            header = (f"{phase.phase}: control", "metric", "ours", "control", "difference")
            parts.append(text_table(header, [row[:5] for row in _control_rows(phase.controls)]))
        if "matrix" in phase.tables:
            parts.append(text_table(*table_text(phase.tables["matrix"])))
    agent = _agent_rows(report)
    if agent:
        parts.append(text_table(("agent", ""), agent))
    return "\n\n".join(parts)


def text_table(header: Sequence[str], rows: Rows) -> str:
    """Aligned columns; the widest cells are cut with `…` until a line fits in 110 columns."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        widths[widths.index(max(widths))] -= 1
    lines = ["  ".join(_cell(text, width) for text, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in [lines[0], "─" * min(WIDTH, len(lines[0])), *lines[1:]])


def _cell(text: str, width: int) -> str:
    text = text if len(text) <= width else text[: width - 1] + "…"
    return text.rjust(width) if text[:1].isdigit() or text[:1] in "-−+" else text.ljust(width)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A GitHub table; bars in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def table_text(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and cells, with each `x ±` column folded into the column `x` before it."""
    errors = {i for i, name in enumerate(table.columns) if name.endswith("±")}
    header = [name for i, name in enumerate(table.columns) if i not in errors]
    rows = []
    for row in table.rows:
        cells = []
        for i, value in enumerate(row):
            if i in errors:
                continue
            error = row[i + 1] if i + 1 in errors else None
            plain = isinstance(value, str) or value is None
            cells.append(number(value) if plain else with_error(float(value), _float(error)))  # type: ignore[arg-type]
        rows.append(cells)
    return header, rows


def _float(value: Cell) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _run_lines(report: Report) -> str:
    machine = ", ".join(f"{key} {number(value)}" for key, value in report.machine.items())
    return "\n".join(
        [
            f"- profile {report.profile}, seed {report.seed}, commit `{report.commit}`",
            f"- started {report.started}, took {report.seconds:.0f} s",
            f"- machine: {machine or NOT_MEASURED}",
        ]
    )


def _data(report: Report) -> str:
    rows = [(s.name, s.licence, number(s.tokens), f"`{s.digest[:12]}`") for s in report.data]
    return markdown_table(("source", "licence", "tokens", "digest"), rows) if rows else NOT_MEASURED


def _phase_sections(phase: PhaseReport) -> list[str]:
    checkpoint = phase.checkpoint
    facts = [
        f"- parameters {number(phase.parameters)}, bytes on disk {number(phase.bytes_on_disk)}, "
        f"seconds {number(phase.seconds)}",
        f"- checkpoint {f'`{checkpoint.path}`, digest `{checkpoint.digest[:12]}`' if checkpoint else NOT_MEASURED}",
    ]
    parts = [f"## {phase.phase}: {phase.status.replace('_', ' ')}", "\n".join(facts)]
    if phase.gates:
        parts += ["### Gates", markdown_table(("gate", "value", "", "threshold", "verdict"), gate_rows(phase.gates))]
    if phase.controls:
        header = ("control", "metric", "ours", "control's", "difference", "n", "budget")
        parts += ["### Controls", markdown_table(header, _control_rows(phase.controls))]
    for table in phase.tables.values():
        parts += [f"### {table.title}", markdown_table(*table_text(table))]
    if phase.metrics:
        names = ("metric", "split", "value", "parent", "n", "unit")
        parts += ["### Metrics", markdown_table(names, metric_rows(phase.metrics))]
    return parts


def gate_rows(gates: Sequence[Gate]) -> list[tuple[str, ...]]:
    """Name, value, comparison, threshold, verdict."""
    return [
        (g.name, number(g.value), g.comparison, number(g.threshold), "passed" if g.passed else "FAILED") for g in gates
    ]


def _control_rows(controls: Sequence[Control]) -> list[tuple[str, ...]]:
    return [
        (c.name, c.metric, number(c.ours), number(c.control), with_error(c.difference, c.stderr), number(c.n), c.budget)
        for c in controls
    ]


def metric_rows(metrics: Sequence[Metric]) -> list[tuple[str, ...]]:
    """Name, split, value with its error, the parent's, n, unit."""
    return [(m.name, m.split, with_error(m.value, m.stderr), number(m.parent), number(m.n), m.unit) for m in metrics]


def _agent_rows(report: Report) -> list[tuple[str, str]]:
    agent = report.agent
    if agent is None:
        return []
    return [
        ("path", agent.path),
        ("packed", agent.packed or "not packed"),
        ("parameters", number(agent.parameters)),
        ("bytes on disk", number(agent.bytes_on_disk)),
        *([("of these expert vectors and latent weights", number(agent.expert_bytes))] if agent.expert_bytes else []),
        ("ratio to 32-bit floats", number(agent.ratio_vs_fp32)),
        ("retention", number(agent.retention)),
        ("latency, ms a token (p50)", number(agent.latency_ms_per_token_p50)),
        ("reading a prompt, ms a token (p50)", number(agent.prompt_ms_per_token_p50)),
        ("peak resident memory, bytes", number(agent.peak_rss_bytes)),
        *([("kernel", agent.kernel)] if agent.kernel else []),
    ]
