"""The gate's verdicts as the report contract has them: metrics, the control, gates, tables.

A *gate* criterion passes where it is shown, a *guard* where it is not shown to be lost; the night promotes only where
everything holds. `decide` adds what the gate does not know of: whether enough is saved.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distillation.night.sitting import Exam
from distillation.record import Record
from distillation.validation.gate import GateConfig, Judged, Verdicts
from distillation.validation.noninferiority import measure
from evaluation.judgement import Cell, Judgement, Table
from evaluation.metric import Comparison, Control, Gate, Metric, Values, mean_metric, paired_control

SPLIT = "test"
ANSWERS, LIKELIHOOD, BESIDE = "answers", "likelihood", "baseline"


def decide(verdicts: Verdicts, reduction: float | None, wanted: float) -> Verdicts:
    """With the goal's saving: a student that is shown to be good but saves too little is not promoted.

    Where the saving is not known it is not judged, which the reasons say.
    """
    if reduction is None:
        said = "the saving a request is not known, so it was not judged"
        return replace(verdicts, reasons=(*verdicts.reasons, said))
    if reduction >= wanted:
        return replace(verdicts, reasons=(*verdicts.reasons, f"a request costs {reduction:.0%} less"))
    direction = "less" if reduction >= 0 else "more"
    said = f"a request costs {abs(reduction):.0%} {direction}, and the goal is {wanted:.0%} less"
    return replace(verdicts, decision="roll back", reasons=(*verdicts.reasons, said))


def judgement(
    exam: Exam, verdicts: Verdicts, config: GateConfig, reduction: float | None, wanted: float, budget: str
) -> Judgement:
    """The night's entry in `report.json`. `budget`: what the control had."""
    teacher = next(iter(exam.right))
    gates = [_gate(one, verdicts.alpha, config.claims_alpha) for one in verdicts.criteria]
    if verdicts.baseline is not None:
        low = verdicts.baseline.low
        kinds = " and ".join(name for name, _ in verdicts.apart)
        said = f"over the baseline, mean over {kinds}, 95 % low"
        gates.append(_plain("beats the equal-budget baseline", said, ">", 0.0, low, low > 0))
    for name, one in verdicts.apart:
        said = f"over the baseline on {name}, 95 % high"
        gates.append(_plain(f"{name}: not worse than the baseline", said, ">=", 0.0, one.high, one.high >= 0))
    gates += [_beside(one, config.claims_alpha) for one in verdicts.beside]
    if reduction is not None:
        held = reduction >= wanted
        gates.append(_plain("saves enough", "share of the cost of a request", ">=", wanted, reduction, held))
    return Judgement(
        metrics=tuple(_metrics(exam, teacher)),
        controls=tuple(_controls(exam, teacher, budget)),
        gates=tuple(gates),
        tables={"verdicts": verdict_table(verdicts), "groups": group_table(exam, teacher, config)},
    )


def _gate(one: Judged, alpha: float, claims_alpha: float) -> Gate:
    if one.role == "gate":
        said = f"p that {one.name} is kept too little (Holm over the gates)"
        return _plain(f"{one.name} is kept", said, "<=", alpha, one.kept.p_above, one.verdict == "pass")
    said = f"p that {one.name} is kept enough (Holm over the guards)"
    return _plain(f"{one.name} is not lost", said, ">", claims_alpha, one.kept.p_below, one.verdict != "fail")


def _beside(one: Judged, claims_alpha: float) -> Gate:
    said = f"p that too little of the baseline's {one.name} is kept"
    return _plain(f"{one.name} beside the baseline", said, "<=", claims_alpha, one.kept.p_above, one.verdict == "pass")


def _plain(name: str, metric: str, comparison: Comparison, threshold: float, value: float, passed: bool) -> Gate:
    """The verdict is the gate's own: with Holm a threshold is not the same for all."""
    return Gate(
        name=name,
        metric=metric,
        comparison=comparison,
        threshold=threshold,
        value=value,
        passed=passed,
    )


def _metrics(exam: Exam, teacher: str) -> list[Metric]:
    theirs = float(np.mean(exam.right[teacher]))
    found = [
        mean_metric(f"{name}/{ANSWERS}", SPLIT, right, parent=None if name == teacher else theirs)
        for name, right in exam.right.items()
    ]
    found += [
        mean_metric(f"{name}/{LIKELIHOOD}", SPLIT, values, "log score") for name, values in exam.likelihood.items()
    ]
    bits, n = exam.bits_per_byte, exam.blocks
    return found + [
        Metric(
            name=f"{name}/bits_per_byte",
            split=SPLIT,
            value=value,
            n=n,
            unit="bits/byte",
            parent=None if name == teacher else bits[teacher],
        )
        for name, value in bits.items()
    ]


def _controls(exam: Exam, teacher: str, budget: str) -> list[Control]:
    _, *rest = [name for name in exam.right if name != teacher]
    found = []
    for name in rest:
        for one in exam.criteria:
            if one.baseline is not None:
                said = f"{one.name} (cost)" if one.costs else one.name
                found.append(paired_control(name, said, one.student, one.baseline, budget))
    return found


def verdict_table(verdicts: Verdicts) -> Table:
    """Every criterion with what it says, and beside the baseline, which stands in the teacher's column then."""
    columns = ("criterion", "role", "n", "teacher", "student", "ratio", "90 % low", "90 % high", "verdict")
    rows: list[tuple[Cell, ...]] = []
    for one, role in [(one, one.role) for one in verdicts.criteria] + [(one, BESIDE) for one in verdicts.beside]:
        kept = one.kept
        name, means = one.name, (kept.teacher, kept.student)
        if one.costs:
            name, means = f"{one.name} (cost)", means[::-1]
        rows.append((name, role, kept.n, *means, kept.ratio, kept.low, kept.high, one.verdict))
    return Table(title=f"Verdicts (this night's alpha {verdicts.alpha:.3g})", columns=columns, rows=tuple(rows))


def group_table(exam: Exam, teacher: str, config: GateConfig) -> Table:
    """The answers by group: for the reader, not for the gate."""
    student, *rest = [name for name in exam.right if name != teacher]
    names = (teacher, student, *rest)
    columns = ("group", "n", *names, f"{student} / {teacher}", "90 % low", "90 % high")
    rows: list[tuple[Cell, ...]] = []
    for group, index in _groups(exam.records).items():
        values: dict[str, Values] = {name: exam.right[name][index] for name in names}
        kind = "right" if all(exam.records[i].reference for i in index) else "graded"
        kept = measure(values[student], values[teacher], config.ratio, kind)  # type: ignore[arg-type]
        means = [float(np.mean(values[name])) for name in names]
        rows.append((group, len(index), *means, kept.ratio, kept.low, kept.high))
    return Table(title="Answers by group", columns=columns, rows=tuple(rows))


def _groups(records: Sequence[Record]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        found.setdefault(record.group, []).append(i)
    return dict(sorted(found.items()))
