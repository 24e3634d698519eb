"""The report of a night: the contract of every run's report, with one phase, `distillation`."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from matplotlib.figure import Figure

from distillation.curation.step import Step
from distillation.money.plots import pictures as money_pictures
from distillation.night.accounting import Sized
from distillation.night.faculty import Faculty
from distillation.night.judgement import judgement, verdict_table
from distillation.night.schooling import Plan, Schooled
from distillation.night.verdict_plots import agreement, learning_curve, quality_cost
from distillation.training.data_size import DataSize
from distillation.training.distil import Distilled
from distillation.validation.readiness import Observed, Readiness, readiness
from evaluation.judgement import Cell, Judgement, Table
from evaluation.latency import count_parameters, describe_agent
from evaluation.machine import describe_machine
from evaluation.report import CheckpointEntry, DataSource, Report, phase_report
from flows.distill_parameters import ProjectConfig
from flows.night import Examined, Night
from phases.environment import code_version

DATABASE = "distillation.db"
"""In the folder of all runs: every project of it."""
PHASE = "distillation"


def night_report(
    config: ProjectConfig,
    started: str,
    night: Night,
    plan: Plan,
    faculty: Faculty,
    schooled: Schooled,
    made: Distilled,
    examined: Examined,
) -> Report:
    """Everything that was measured; what was not says so."""
    found = judgement(
        examined.exam,
        examined.verdicts,
        config.gate,
        examined.account.reduction,
        config.goal.cost_reduction,
        made.figures["control_had"],
    )
    tables = {
        **found.tables,
        **examined.account.tables,
        "readiness": readiness_table(ready(config, schooled, examined)),
        "curation": curation_table([*plan.questions.steps, *schooled.steps]),
        "answers": answers_table(schooled, faculty),
        "data": data_table(schooled),
    }
    if faculty.ranking is not None:
        tables["teachers"] = ranking_table(faculty)
    if schooled.curve is not None:
        tables["learning_curve"] = curve_table(schooled.curve)
    student = made.student
    passed = examined.verdicts.decision == "promote"
    entry = phase_report(
        PHASE,
        "passed" if passed else "rolled_back",
        Judgement(metrics=found.metrics, controls=found.controls, gates=found.gates, tables=tables),
        parameters=count_parameters(student.path)[0],
        bytes_on_disk=student.bytes_on_disk,
        seconds=round(sum(night.seconds.values()), 1),
        checkpoint=CheckpointEntry(path=str(student.path), digest=student.digest),
        parents=tuple(student.manifest.get("parents", ())),
    )
    answers = next(one.kept for one in examined.verdicts.criteria if one.name == "answers")
    agent = describe_agent(student, examined.student.latency, student.siblings.get("packed"), answers.ratio)
    began = datetime.fromisoformat(started).timestamp()
    return Report(
        run=f"{config.project}-night-{night.workshop.number:04d}",
        profile=config.template,
        commit=code_version(),
        seed=config.seed,
        started=started,
        seconds=round(time.time() - began, 1),
        machine=describe_machine(),
        data=_sources(schooled),
        phases=(entry,),
        agent=agent if passed else None,
    )


def _sources(schooled: Schooled) -> tuple[DataSource, ...]:
    """The version's sources; tokens are those that a student learns from, of all of them together."""
    tokens = schooled.card.get("tokens")
    licences = ", ".join(schooled.card["licences"])
    count = int(tokens["prompt"] + tokens["completion"]) if isinstance(tokens, dict) else 0
    return (DataSource(name="records", licence=licences, tokens=count, digest=schooled.version),)


def ready(config: ProjectConfig, schooled: Schooled, examined: Examined) -> Readiness:
    """The readiness score of a student."""
    criteria = {one.name: one.kept for one in examined.verdicts.criteria}
    changed = [kept.ratio for name, kept in criteria.items() if name.startswith("robustness/") and kept.ratio]
    safe = [kept.student for name, kept in criteria.items() if name.startswith("safety/")]
    ours, theirs, odds = examined.student, examined.teacher, examined.account.assessment.odds
    quality = next((s for s in reversed(schooled.steps) if s.name == "quality"), None)
    first, last = schooled.steps[0].before, schooled.steps[-1].after
    return readiness(
        Observed(
            ratio_low=criteria["answers"].low,
            transformed_ratios=tuple(changed) or None,
            safe_shares=tuple(safe) or None,
            speed_up=_times(_milliseconds(theirs), _milliseconds(ours)),
            smaller=_times(theirs.bytes_on_disk, ours.bytes_on_disk),
            pays_back=None if odds is None else odds.probability,
            quality_score=None if quality is None else quality.figures.get("mean score"),
            records_kept=last / first if first else None,
        ),
        config.readiness,
    )


def _milliseconds(sized: Sized) -> float | None:
    return None if sized.latency is None else sized.latency.ms_per_token_p50


def _times(theirs: float | None, ours: float | None) -> float | None:
    return theirs / ours if theirs and ours else None


def readiness_table(found: Readiness) -> Table:
    """The score and its parts."""
    rows: list[tuple[Cell, ...]] = [(part.name, part.points, part.weight) for part in found.parts]
    title = f"Readiness (0 to 100; {found.coverage:.0%} of the weights measured)"
    return Table(title=title, columns=("part", "points", "weight"), rows=(*rows, ("all", found.score, None)))


def curation_table(steps: Sequence[Step]) -> Table:
    """What each step took out, and why."""
    rows = tuple(
        (step.name, step.before, step.after, "; ".join(f"{why}: {n}" for why, n in step.removed.items()) or "nothing")
        for step in steps
    )
    return Table(
        title="Curation: of the questions, then of the answers", columns=("step", "in", "out", "removed"), rows=rows
    )


def data_table(schooled: Schooled) -> Table:
    """The version that is learnt from: how much it is, how unlike its questions are, what it was made of."""
    card, diversity = schooled.card, schooled.card["diversity"]
    tokens = card["tokens"] or {}
    rows: list[tuple[Cell, ...]] = [
        ("version", card["version"][:16], "of its records, the recipe and the version before"),
        ("version before", card["parent"][:16] or "none", ""),
        ("records", card["records"], f"{card['answered']:,} answered"),
        ("tokens of questions", tokens.get("prompt"), "" if tokens else "an endpoint's tokens are not known"),
        ("tokens of answers", tokens.get("completion"), ""),
        ("groups", diversity["groups"], f"{diversity['group_entropy_bits']:.2f} bits"),
        *((f"distinct {name}", share, "share of all") for name, share in diversity["distinct"].items()),
        ("nearest other question", diversity["nearest"], f"similarity, mean over {diversity['sample']:,}"),
    ]
    for step in schooled.steps:
        rows += [(f"{step.name}: {name}", value, "") for name, value in step.figures.items()]
    return Table(title="Data set", columns=("what", "value", "note"), rows=tuple(rows))


def answers_table(schooled: Schooled, faculty: Faculty) -> Table:
    """Where the answers came from, what they cost, and by which licence they may be learnt from."""
    filled = schooled.filled
    rows: list[tuple[Cell, ...]] = [
        ("asked this night", filled.asked, ""),
        ("from the store", filled.from_store, ""),
        ("cut off, not learnt from", filled.cut_off, ""),
        ("cost, USD", filled.usd, "" if filled.usd is not None else "a price is not known"),
        *((f"new questions, {group}", count, "synthetic") for group, count in schooled.synthetic.items()),
        *(("without an answer", count, reason) for reason, count in filled.failed.items()),
    ]
    rows += [("attempts without an answer", one.count, one.reason) for one in schooled.attempts]
    if faculty.price is not None:
        rows.append(("price", None, ", ".join(f"{k} {v}" for k, v in faculty.price.as_json().items())))
    if filled.stopped:
        rows.append(("stopped early", None, filled.stopped))
    rows += [(f"licence of {one.teacher}", one.licence, one.says) for one in faculty.licences]
    return Table(title="Answers", columns=("what", "value", "note"), rows=tuple(rows))


def ranking_table(faculty: Faculty) -> Table:
    """Teachers, the best first, and the recommendation."""
    assert faculty.ranking is not None
    columns = ("teacher", "score", "95 % low", "95 % high", "n", "USD a question", "seconds (median)", "best by cost")
    rows = tuple(
        (s.teacher, s.score, s.low, s.high, s.n, s.usd_per_question, s.seconds_p50, _word(s.on_front))
        for s in faculty.ranking.standings
    )
    return Table(title=f"Teachers: {faculty.ranking.reason}", columns=columns, rows=rows)


def _word(on_front: bool | None) -> str | None:
    return None if on_front is None else "yes" if on_front else "no"


def curve_table(curve: DataSize) -> Table:
    """The learning curve."""
    rows = tuple((p.records, p.loss, p.stderr, p.accuracy, p.fitted) for p in curve.points)
    columns = ("records", "held-out nats a token", "±", "right", "fitted")
    return Table(title=f"Learning curve: {curve.reason}", columns=columns, rows=rows)


def night_pictures(schooled: Schooled, examined: Examined, faculty: Faculty) -> dict[str, Figure]:
    """File name to figure."""
    found = {"agreement.png": agreement(examined.verdicts)}
    if schooled.curve is not None:
        found["learning-curve.png"] = learning_curve(schooled.curve)
    if faculty.ranking is not None:
        found["quality-cost.png"] = quality_cost(faculty.ranking)
    return found | money_pictures(examined.account.assessment)


def summary_rows(examined: Examined) -> list[dict[str, Any]]:
    """The verdicts for Prefect's table."""
    table = verdict_table(examined.verdicts)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]
