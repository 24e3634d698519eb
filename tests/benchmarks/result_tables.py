"""The result tables of README.md, written from the default run's report, so that no figure is copied by hand.

    python -m tests.benchmarks.result_tables [REPORT]      # REPORT is copied to docs/results/laptop.* first

A table stands between `<!-- results: NAME -->` and `<!-- end -->`; `tests/test_result_tables.py` compares README
with what would be written.
"""

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluation.report import PhaseReport, Report

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "results"
README = ROOT / "README.md"
MARKED = re.compile(r"(<!-- results: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOT_MEASURED = "not measured"
KINDS = ("python", "retrieve", "search", "memory")
DOMAINS = ("reasoning", "recall", "facts", "persona", "python", "retrieve", "search")


class Phase:
    """A phase of a report, by names."""

    def __init__(self, entry: PhaseReport) -> None:
        self.entry = entry

    def value(self, name: str, digits: int = 3, split: str = "test") -> str:
        """A metric with its standard error."""
        found = [m for m in self.entry.metrics if m.name == name and m.split == split]
        return with_error(found[-1].value, found[-1].stderr, digits) if found else NOT_MEASURED

    def number(self, name: str) -> float | None:
        """A metric alone; None: not measured."""
        found = [m.value for m in self.entry.metrics if m.name == name and m.split == "test"]
        return found[-1] if found else None

    def row(self, table: str, name: str) -> list[Any]:
        """A row of a table, by its first cell."""
        return next(list(row) for row in self.entry.tables[table].rows if row[0] == name)

    def difference(self, control: str, metric: str, digits: int = 3) -> str:
        """Ours less a control's, of costs as of costs."""
        one = next(c for c in self.entry.controls if (c.name, c.metric) == (control, metric))
        sign = -1 if metric.startswith("−") else 1
        return with_error(sign * one.difference, one.stderr, digits)


def with_error(value: float | None, error: float | None, digits: int = 3) -> str:
    """`0.123 ± 0.004`."""
    if value is None:
        return NOT_MEASURED
    told = f"{value:.{digits}f}"
    told = (told.removeprefix("-") if float(told) == 0 else told).replace("-", "−")
    return told if error is None else f"{told} ± {error:.{digits}f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """As markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def cognate(report: Report) -> str:
    """Trunk, branches, control and merge at every speciality."""
    own, merge = phase(report, "cognate"), phase(report, "evomerge")
    names = ("reasoning_exact_match", "recall_accuracy", "copying_exact_match", "half_depth_accuracy", "bits_per_byte")
    rows = [
        [label, *(own.value(f"{model}/{name}") for name in names)]
        for label, model in (
            *((name, name) for name in ("trunk", "reasoning", "memory", "adaptive")),
            ("control: trunk trained on", "control"),
        )
    ]
    soup = merge.row("matrix", "uniform soup")
    reasoning, recall, depth = (with_error(*soup[i : i + 2]) for i in (1, 3, 5))
    rows.append(["**evolved merge**", *(merge.value(f"evomerge/{name}") for name in names)])
    rows.append(["uniform soup", reasoning, recall, NOT_MEASURED, depth, NOT_MEASURED])
    majority, any_value, bigram = (
        own.value(f"floor:{name}")
        for name in ("majority/reasoning_exact_match", "copy any value/recall_accuracy", "bigram/bits_per_byte")
    )
    rows.append(["floor", f"{majority} majority", f"{any_value} any stored value", "–", "–", f"{bigram} bigram"])
    told = ("reasoning (exact match)", "recall (accuracy)", "said again without a mistake", "next token at half depth")
    return table(("model", *told, "bits per byte"), rows)


def merges(report: Report) -> str:
    """The merge beside its controls."""
    rows = [
        [c.name, f"{c.ours:.4f}", f"{c.control:.4f}", with_error(c.difference, c.stderr, 4)]
        for c in phase(report, "evomerge").entry.controls
    ]
    return table(("the merge's mean of three against", "ours", "control", "difference"), rows)


def thoughts(report: Report) -> str:
    """Nats a token with and without thoughts."""
    own, metric = phase(report, "quiet_star"), "−nats a token, mean over the kinds of rows"
    models = {
        "parent": "parent",
        "plain training, no thoughts": "plain control",
        "pause tokens": "pause control",
        "the thinking model, thoughts off": "off",
        "**thoughts on**": "on",
        "thoughts of other positions": "shuffled",
    }
    rows = []
    for label, model in models.items():
        nats = [with_error(own.number(f"{model}/{kind}_nats"), None) for kind in ("text", "reasoning", "memory")]
        rows.append([label, *nats, "" if model == "on" else own.difference(model, metric)])
    return table(("", "text", "reasoning answers", "recall answers", "mean, thinking less this"), rows)


def ternary(report: Report) -> str:
    """Sizes and what is kept."""
    own = phase(report, "bitnet")
    models = {
        "parent": "parent",
        "**ternary**": "bitnet",
        "**packed, as it runs** (8-bit activations)": "packed, as it runs",
        "rounded to the same lattice, not trained": "rounded to ternary",
        "same steps, no teacher": "no_teacher",
        "same steps, full precision": "full_precision",
        "bitsandbytes NF4": "bitsandbytes NF4",
        "bitsandbytes int8": "bitsandbytes int8",
    }
    rows = []
    for label, model in models.items():
        _, size, bits, text, text_error, kept, kept_error = own.row("rivals", model)
        _, reasoning, r_error, recall, m_error, *_ = own.row("matrix", model)
        cells = [with_error(text, text_error), with_error(reasoning, r_error), with_error(recall, m_error)]
        last = "–" if model == "parent" else with_error(kept, kept_error, 2)
        rows.append([label, f"{size:,.0f}", f"{bits:.2f}", *cells, last])
    names = ("model", "bytes of the weights", "bits a parameter", "bits per byte", "reasoning", "recall", "tasks kept")
    return table(names, rows)


def stages(report: Report) -> str:
    """Training on."""
    own = phase(report, "forge")
    names = ("bits_per_byte", "reasoning_exact_match", "recall_accuracy", "copying_exact_match")
    every = (*names, "reasoning_answer_nats", "memory_answer_nats")
    models = {"parent (ternary)": "parent", "**ten stages**": "forge", "control: trained on": "plain"}
    rows = [[label, *(own.value(f"{model}/{name}") for name in every)] for label, model in models.items()]
    compared = ("−bits per byte", *every[1:3], "", *(f"−{name}" for name in every[4:]))
    for label, control in (("ours less the parent's", "parent"), ("ours less the control's", "plain")):
        cells = [own.difference(control, metric) if metric else "–" for metric in compared]
        rows.append([label, *cells])
    told = ("bits per byte", "reasoning", "recall", "said again without a mistake")
    return table(("", *told, "right reasoning answers, nats", "right recall answers, nats"), rows)


def baked(report: Report) -> str:
    """Conversations without a prompt, and with it."""
    own = phase(report, "baking")
    models = {
        "parent, prompt and two examples": ("parent prompted", "parent prompted", None),
        "parent, no prompt": ("parent", "parent", "parent"),
        "taught, with its prompt": ("prompted", "prompted, with prompt", None),
        "**baked, no prompt**": ("baking", "baking", "baking"),
        "control: fine-tuned, same steps": ("plain", "plain", "plain"),
    }
    rows = []
    for label, (model, speaker, tasks) in models.items():
        kinds = [own.value(f"{model}/{kind}_right", 2) for kind in KINDS]
        persona = with_error(*own.row("persona", speaker)[2:4], 2)
        rest = ["–", "–"]
        if tasks:
            rest = [own.value(f"{tasks}/perplexity", 1), own.value(f"{tasks}/reasoning_exact_match")]
        rows.append([label, *kinds, persona, *rest])
    return table(("", "sums by Python", "documents", "search", "facts", "in persona", "perplexity", "reasoning"), rows)


def designs(report: Report) -> str:
    """The found design, domain by domain."""
    own = phase(report, "adas")
    models = {
        "parent": "parent",
        "**found design**": "adas",
        "the same without experts": "ours without experts",
        "the same without techniques": "ours without techniques",
        "random search, as many conversations": "random search",
        "uniform mixture of experts": "uniform mixture",
    }
    rows = []
    for label, model in models.items():
        right = [with_error(own.number(f"{model}/{domain}_right"), None) for domain in (*DOMAINS, "copying")]
        rows.append([label, own.value(f"{model}/mean_right"), *right, with_error(own.number(f"{model}/work"), None, 2)])
    told = ("reasoning", "recall", "facts", "in persona", "sums", "documents", "search", "copying", "work")
    return table(("", "mean", *told), rows)


def compressed(report: Report) -> str:
    """The agent at a twentieth."""
    own = phase(report, "compression")
    models = {
        "parent, as it was found": "parent",
        "**compressed agent**, no experts": "compression",
        "the same form, not trained": "untrained",
        "the same steps in float32": "full_precision",
    }
    rows = []
    for label, model in models.items():
        right = [own.number(f"{model}/{domain}_right") for domain in DOMAINS]
        known = [value for value in right if value is not None]
        mean = f"{sum(known) / len(known):.3f}" if known else NOT_MEASURED
        kept = "–" if model == "parent" else own.value(f"{model}/retention")
        names = ("bits_per_byte", "reasoning_exact_match", "recall_accuracy")
        rows.append([label, *(own.value(f"{model}/{name}") for name in names), mean, kept])
    return table(("", "bits per byte", "reasoning", "recall", "mean of the domains", "kept of the parent"), rows)


TABLES: dict[str, Callable[[Report], str]] = {
    "cognate": cognate,
    "merges": merges,
    "thoughts": thoughts,
    "ternary": ternary,
    "stages": stages,
    "baked": baked,
    "designs": designs,
    "compressed": compressed,
}


def phase(report: Report, name: str) -> Phase:
    """One of the report's."""
    return Phase(next(entry for entry in report.phases if entry.phase == name))


def written(text: str, report: Report) -> str:
    """README with every table anew."""
    return MARKED.sub(lambda match: match[1] + "\n" + TABLES[match[2]](report) + "\n" + match[3], text)


def main() -> None:
    """Write them."""
    if len(sys.argv) > 1:
        for name in ("json", "md"):
            shutil.copy(Path(sys.argv[1]) / f"report.{name}", KEPT / f"laptop.{name}")
    README.write_text(written(README.read_text(encoding="utf-8"), kept_report()), encoding="utf-8")


def kept_report() -> Report:
    """The default run's."""
    return Report.model_validate_json((KEPT / "laptop.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
