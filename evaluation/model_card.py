"""The model card of a shipped agent: what it is, how to open it, and every figure that was measured on it.

model_card(report)                                     # Markdown, from the run's own report and nothing else
"""

import math

from evaluation.metric import Control, Metric
from evaluation.render import NOT_MEASURED, gate_rows, markdown_table, number, with_error
from evaluation.report import PhaseReport, Report
from evaluation.size_plot import journey

SHOWN = ("retention", "_retention", "_right", "bits_per_byte", "exact_match", "accuracy", "ms_per_token", "peak_rss")
"""Ends of the names of metrics that a user of the agent asks for."""
_OPEN = """```python
import phases.compression.quantizer                         # registers the format with transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("agent")       # this folder
tokenizer = AutoTokenizer.from_pretrained("agent")
```

With its tools, memory and design: `forge chat agent`, or `forge serve agent` for OpenAI-compatible clients. For other
programs: `forge export agent --format gguf --out agent.gguf`, or `--dequantise --out plain`."""


def model_card(report: Report) -> str:
    """Raises `ValueError` for a report without an agent."""
    last = next((phase for phase in reversed(report.phases) if phase.status == "passed"), None)
    if report.agent is None or last is None:
        raise ValueError(f"run {report.run} has no agent")
    agent = report.agent
    licences = sorted({source.licence for source in report.data})
    size = agent.parameters * 4 / agent.ratio_vs_fp32
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [agent-forge, forge_compressed]\n---",
        f"# An agent of the run `{report.run}`",
        f"{number(agent.parameters)} parameters in {number(round(size))} bytes, {number(agent.ratio_vs_fp32)} times "
        f"smaller than float32, header and side information included. Made {report.started[:10]} by profile "
        f"{report.profile}, seed {report.seed}, commit `{report.commit[:12]}`. It knows what it was trained on and "
        "little else; what it says is to be checked.",
        "## Open it\n\n" + _OPEN,
        "## What was measured\n\nOn held-out items of the split that each line names, on the file itself. ± is one "
        "standard error over the n items, conversations or blocks of text; a file's size and a process's time are "
        "single figures.",
        markdown_table(("metric", "split", "value", "parent", "n", "unit"), _rows(last)),
        *_controls(last),
        "## Gates of the last phase\n\n"
        + markdown_table(("gate", "value", "", "threshold", "verdict", "n"), _gates(last)),
        "## Size and quality, phase by phase\n\n"
        + markdown_table(
            ("phase", "verdict", "bytes of the weights", "tasks right", "n", "bits per byte", "n"), _journey(report)
        ),
        "## Trained on\n\n"
        + markdown_table(("source", "licence", "tokens"), [(s.name, s.licence, number(s.tokens)) for s in report.data]),
        f"Licences of the data: {', '.join(licences)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _rows(phase: PhaseReport) -> list[tuple[str, ...]]:
    known, rows = _by_name(phase), list[tuple[str, ...]]()
    for metric in phase.metrics:
        what = metric.name.removeprefix(f"{phase.phase}/")
        if what != metric.name and metric.name.endswith(SHOWN):
            parent = known.get(f"parent/{what}")
            rows.append((what, metric.split, _shown(metric), _shown(parent, "–"), number(metric.n), metric.unit))
    return rows


def _controls(phase: PhaseReport) -> list[str]:
    """What the same budget brought the plain way, and which share of that is kept."""
    if not phase.controls:
        return []
    known, rows = _by_name(phase), list[tuple[str, ...]]()
    for control in phase.controls:
        what = control.metric.rpartition("/")[2]
        ours, theirs = known.get(f"{phase.phase}/{what}"), known.get(f"{control.name}/{what}")
        rows.append(
            (
                *(control.name, what, _shown(ours, number(control.ours)), _shown(theirs, number(control.control))),
                *(with_error(control.difference, control.stderr), _kept(control, ours, theirs)),
                *(number(control.n), control.budget),
            )
        )
    header = ("control", "metric", "ours", "control's", "difference", "kept of the control's", "n", "given to it")
    text = "On the same items, so that the error of a difference is that of the pairs."
    return [f"## Controls\n\n{text}\n\n" + markdown_table(header, rows)]


def _kept(control: Control, ours: Metric | None, theirs: Metric | None) -> str:
    """r = a / b with its error to first order, √(var a + r² var b − 2 r cov) / b; the paired difference has the cov."""
    a, b = (None if metric is None else metric.stderr for metric in (ours, theirs))
    if a is None or b is None or control.stderr is None or control.control <= 0:
        return NOT_MEASURED
    r, cov = control.ours / control.control, (a**2 + b**2 - control.stderr**2) / 2
    return with_error(r, math.sqrt(max(0.0, a**2 + (r * b) ** 2 - 2 * r * cov)) / control.control)


def _gates(phase: PhaseReport) -> list[tuple[str, ...]]:
    """Their values with errors and n, where they are of a metric; a difference has its error in the threshold."""
    known, rows = _by_name(phase), list[tuple[str, ...]]()
    for gate, (name, value, *rest) in zip(phase.gates, gate_rows(phase.gates), strict=True):
        metric = known.get(gate.metric)
        if metric is not None and not math.isclose(metric.value, gate.value):
            metric = None  # one of that name on another split
        rows.append((name, _shown(metric, value), *rest, "–" if metric is None else number(metric.n)))
    return rows


def _journey(report: Report) -> list[tuple[str, ...]]:
    verdicts: dict[str, PhaseReport] = {phase.phase: phase for phase in report.phases}
    return [
        (
            point.phase,
            verdicts[point.phase].status.replace("_", " "),
            number(point.weight_bytes),
            *(cell for metric in (point.tasks, point.bits_per_byte) for cell in (_shown(metric), _count(metric))),
        )
        for point in journey(report)
    ]


def _by_name(phase: PhaseReport) -> dict[str, Metric]:
    return {metric.name: metric for metric in phase.metrics}


def _shown(metric: Metric | None, otherwise: str = NOT_MEASURED) -> str:
    return otherwise if metric is None else with_error(metric.value, metric.stderr)


def _count(metric: Metric | None) -> str:
    return number(None if metric is None else metric.n)
