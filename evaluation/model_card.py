"""The model card of a shipped agent: what it is, how to open it, and every figure that was measured on it.

model_card(report)                                     # Markdown, from the run's own report and nothing else
"""

from collections.abc import Sequence

from evaluation.metric import Metric
from evaluation.render import gate_rows, markdown_table, metric_rows, number
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
        "## What was measured\n\nOn held-out items of the split that each line names, on the file itself.",
        markdown_table(("metric", "split", "value", "parent", "n", "unit"), _rows(last.metrics, last.phase)),
        "## Gates of the last phase\n\n"
        + markdown_table(("gate", "value", "", "threshold", "verdict"), gate_rows(last.gates)),
        "## Size and quality, phase by phase\n\n"
        + markdown_table(
            ("phase", "verdict", "bytes of the weights", "tasks right", "bits per byte"), _journey(report)
        ),
        "## Trained on\n\n"
        + markdown_table(("source", "licence", "tokens"), [(s.name, s.licence, number(s.tokens)) for s in report.data]),
        f"Licences of the data: {', '.join(licences)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _rows(metrics: Sequence[Metric], phase: str) -> list[tuple[str, ...]]:
    ours = [m for m in metrics if m.name.startswith(f"{phase}/") and m.name.endswith(SHOWN)]
    return [(name.removeprefix(f"{phase}/"), *rest) for name, *rest in metric_rows(ours)]


def _journey(report: Report) -> list[tuple[str, ...]]:
    verdicts: dict[str, PhaseReport] = {phase.phase: phase for phase in report.phases}
    return [
        (
            point.phase,
            verdicts[point.phase].status.replace("_", " "),
            number(point.weight_bytes),
            "not measured" if point.tasks is None else number(point.tasks),
            "not measured" if point.bits_per_byte is None else number(point.bits_per_byte),
        )
        for point in journey(report)
    ]
