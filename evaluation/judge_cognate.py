"""The judge of phase 1: is every model better than a bigram, and is every branch the best at its own speciality?

    judge(checkpoint, [], data, EvaluationConfig())

The trunk is the checkpoint, the branches and the control (the trunk trained on, on the common mix, for as many tokens
as a branch) are its siblings. A branch that only gained from more training would not beat its siblings on its own
column; the control shows the same from the other side.
"""

from collections.abc import Sequence

from evaluation.config import EvaluationConfig
from evaluation.exit_report import exit_report
from evaluation.judgement import Judgement
from evaluation.measured import Measured, floor_metrics, item_tables, measure, model_metrics, text_floors
from evaluation.metric import Control, Gate, finite_check, gate, paired_control
from evaluation.ratio import BlockLosses, bits_difference, bits_per_byte
from evaluation.specialities import NAMES, Margin, Scores, diagonal_margin, held_out, margin_metric, matrix_table
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.probe import SPECIALITIES


def judge(checkpoint: Checkpoint, parents: Sequence[Checkpoint], data: Dataset, config: EvaluationConfig) -> Judgement:
    """Judge a cognate checkpoint. Raises `CheckpointError` when a branch or the control is missing."""
    family = _family(checkpoint)
    units = held_out(data, config)
    tokenizer = checkpoint.tokenizer()
    models = {name: member.model() for name, member in family.items()}
    measured = {name: measure(model, tokenizer, units, config) for name, model in models.items()}
    finite, finite_gate = finite_check(sum(m.not_finite for m in measured.values()), units.split, len(units.text_NT))
    if not finite_gate.passed:
        return Judgement(metrics=(finite,), gates=(finite_gate,))
    scores = {name: m.scores for name, m in measured.items()}
    floors = text_floors(data, units)
    margins = [diagonal_margin(scores, name, SPECIALITIES, config) for name in SPECIALITIES]
    exit_metrics, exit_table = exit_report(
        {name: models[name] for name in ("trunk", "adaptive")}, tokenizer, units, config.exit_confidence
    )
    metrics = [
        metric
        for name, m in measured.items()
        for metric in model_metrics(name, m, units.split, None if name == "trunk" else measured["trunk"])
    ]
    return Judgement(
        metrics=(
            finite,
            *metrics,
            *(margin_metric(m, units.split) for m in margins),
            *exit_metrics,
            *floor_metrics(data, units, floors),
        ),
        controls=tuple(_control(name, scores, family[name]) for name in SPECIALITIES),
        gates=(
            finite_gate,
            *_floor_gates(measured, floors["bigram"], config),
            *(_diagonal_gate(m, config) for m in margins),
        ),
        tables={"matrix": matrix_table(scores), **item_tables(units, scores), "exit_depth": exit_table},
    )


def _family(checkpoint: Checkpoint) -> dict[str, Checkpoint]:
    siblings = checkpoint.siblings
    missing = [name for name in (*SPECIALITIES, "control") if name not in siblings]
    if missing:
        raise CheckpointError(
            f"{checkpoint.path}: no sibling {', '.join(missing)}; give the checkpoint of a whole cognate phase"
        )
    return {"trunk": checkpoint, **{name: siblings[name] for name in (*SPECIALITIES, "control")}}


def _floor_gates(measured: dict[str, Measured], bigram: BlockLosses, config: EvaluationConfig) -> list[Gate]:
    """Bits per byte under the bigram's by more than so many paired standard errors; the control is not a product."""
    gates = []
    for name in ("trunk", *SPECIALITIES):
        ours = bits_per_byte(measured[name].text, f"{name}/bits_per_byte", config.split)
        difference, error = bits_difference(measured[name].text, bigram)
        threshold = ours.value - difference - config.sigmas * (error or 0.0)
        gates.append(gate(f"{name} beats the bigram floor", ours.name, ours.value, "<", threshold))
    return gates


def _diagonal_gate(margin: Margin, config: EvaluationConfig) -> Gate:
    title = f"{margin.branch} is the best branch at {margin.branch} (next: {margin.rival})"
    metric = margin_metric(margin, config.split)
    return gate(title, metric.name, metric.value, ">", config.sigmas * margin.by.stderr)


def _control(name: str, scores: dict[str, Scores], branch: Checkpoint) -> Control:
    trained = branch.manifest.get("metrics", {})
    budget = f"{trained.get('steps', 0):.0f} steps, {trained.get('tokens', 0):.0f} tokens each"
    metric = f"{name}/{NAMES[name]}"
    return paired_control("trunk trained on", metric, scores[name][name], scores["control"][name], budget)
