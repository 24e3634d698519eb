"""The judge of phase 5: is the model better for its ten stages, and no worse than one that was merely trained on?

    judge(checkpoint, [parent], data, EvaluationConfig())

The model was reloaded from disk. It has to beat its parent by more than two standard errors of the paired difference on
the text and on the tasks' right answers, in nats, which tell more from as many items than right or wrong does. In
neither, nor in answers that it writes itself, may it be worse than the control or the parent beyond two of them, and it
may not have lost more than 5 % of the right answers of anything. The control had the same optimizer, rows and schedule
without any ingredient, for as many more steps as the ingredients cost. A ternary model must have stayed on its lattice.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.config import EvaluationConfig
from evaluation.forge_report import (
    complexity_table,
    dream_metrics,
    dream_table,
    loop_table,
    self_metrics,
    stage_table,
)
from evaluation.judgement import Judgement
from evaluation.lattice import lattice_gates
from evaluation.measured import Measured, floor_metrics, item_tables, measure, model_metrics, text_floors
from evaluation.metric import Control, Gate, Metric, Values, finite_check, gate, mean_metric, paired_control
from evaluation.ratio import bits_difference, bits_per_byte, text_control
from evaluation.retention import TASKS, lost_tasks, retention_metrics, task_retention, task_table
from evaluation.significance import Difference, stratified_bootstrap
from evaluation.specialities import NAMES, Units, held_out, matrix_table
from evaluation.unseen import unseen_losses, unseen_table
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.forge.history import read_history
from phases.forge.run import PLAIN
from phases.probe import answer_losses, encode_items

NAME, PARENT = "forge", "parent"
TITLES = {PARENT: "parent", PLAIN: "control"}
Answers = Mapping[str, Values]
"""Task to (n,) nats a token of its items' right answers."""


def judge(checkpoint: Checkpoint, parents: Sequence[Checkpoint], data: Dataset, config: EvaluationConfig) -> Judgement:
    """Judge a forge checkpoint. Raises `CheckpointError` when control, history or packed form is missing."""
    if PLAIN not in checkpoint.siblings:
        raise CheckpointError(f"{checkpoint.path}: its control {PLAIN} is missing; run the phase again")
    history = read_history(checkpoint.path)
    units, tokenizer = held_out(data, config), checkpoint.tokenizer()
    models = {NAME: checkpoint.model(), PARENT: parents[0].model(), PLAIN: checkpoint.siblings[PLAIN].model()}
    measured = {NAME: measure(models[NAME], tokenizer, units, config)}
    finite, finite_gate = finite_check(measured[NAME].not_finite, units.split, len(units.text_NT))
    if not finite_gate.passed:
        return Judgement(metrics=(finite,), gates=(finite_gate,))
    measured |= {name: measure(models[name], tokenizer, units, config) for name in (PARENT, PLAIN)}
    broken = [TITLES[name] for name in (PARENT, PLAIN) if measured[name].not_finite]
    if broken:
        raise CheckpointError(f"{checkpoint.path}: its {broken[0]} has NaN or infinite losses; make it again")
    answers = {name: _answers(model, tokenizer, units) for name, model in models.items()}
    unseen = {name: unseen_losses(model, tokenizer, data, config) for name, model in models.items()}
    ours, parent = measured[NAME], measured[PARENT]
    packed, lattice = lattice_gates(NAME, checkpoint, parents[0], models[NAME])
    scores = {name: found.scores for name, found in measured.items()}
    return Judgement(
        metrics=(
            finite,
            *model_metrics(NAME, ours, units.split, parent),
            *retention_metrics(NAME, ours, parent, units),
            *model_metrics(PARENT, parent, units.split),
            *model_metrics(PLAIN, measured[PLAIN], units.split),
            *_answer_metrics(answers, units.split),
            *(() if packed is None else packed.metrics(units.split)),
            *dream_metrics(history),
            *self_metrics(history),
            *floor_metrics(data, units, text_floors(data, units)),
        ),
        controls=_controls(measured, answers, checkpoint),
        gates=(
            finite_gate,
            *_comparison(measured, answers, PARENT, True, config),
            *_comparison(measured, answers, PLAIN, False, config),
            *_no_regression(measured, units, config),
            *_budget(checkpoint),
            *lattice,
        ),
        tables={
            "stages": stage_table(history),
            **dream_table(history),
            **loop_table(history),
            "complexity": complexity_table(models, units.text_NT),
            "retention": task_table(units, ours, parent, NAME),
            "unseen": unseen_table(NAME, PARENT, unseen),
            "matrix": matrix_table(scores),
            **item_tables(units, scores),
        },
    )


def _comparison(
    measured: Mapping[str, Measured], answers: Mapping[str, Answers], other: str, better: bool, config: EvaluationConfig
) -> list[Gate]:
    """Gates of ours against another model: bits per byte and nats of the right answers (`better`: beyond the errors,
    else no worse beyond them), and the share of answers that are right, no worse beyond them.
    """
    saved, stderr = bits_difference(measured[other].text, measured[NAME].text)
    ours, theirs = measured[NAME].scores, measured[other].scores
    nats = _mean([(answers[other][task], answers[NAME][task]) for task in TASKS], config)
    right = _mean([(ours[task], theirs[task]) for task in TASKS], config)
    found = {
        "text": (f"{other}/bits_per_byte less {NAME}'s", saved, stderr or 0.0),
        "answers": (f"{other}/answer_nats less {NAME}'s", nats.difference, nats.stderr),
    }
    gates = []
    for what, (metric, value, error) in found.items():
        bound = config.sigmas * error
        if better:
            gates.append(gate(f"{what}: better than the {TITLES[other]}", metric, value, ">", bound))
        else:
            gates.append(gate(f"{what}: no worse than the {TITLES[other]}", metric, value, ">=", -bound))
    title, metric = f"tasks: no worse than the {TITLES[other]}", f"{NAME}/right answers less {other}'s"
    return [*gates, gate(title, metric, right.difference, ">=", -config.sigmas * right.stderr)]


def _mean(pairs: Sequence[tuple[Values, Values]], config: EvaluationConfig) -> Difference:
    """Mean over the tasks of the first less the second, paired over their items."""
    return stratified_bootstrap(pairs, config.resamples, config.seed)


def _answers(model: Any, tokenizer: Any, units: Units) -> Answers:
    """Nats a token of every item's right answer, by task."""
    return {task: answer_losses(model, encode_items(tokenizer, units.items[task]))[0] for task in TASKS}


def _budget(checkpoint: Checkpoint) -> list[Gate]:
    """The control had at least what ours had."""
    ours, plain = (c.manifest["metrics"] for c in (checkpoint, checkpoint.siblings[PLAIN]))
    return [
        gate(f"the control had as many {name}", f"{PLAIN}/{name}", plain[name], ">=", ours[name])
        for name in ("tokens", "passes")
    ]


def _no_regression(measured: Mapping[str, Measured], units: Units, config: EvaluationConfig) -> list[Gate]:
    """Of each speciality and of the text what the config allows; of each single task the same beyond its error.

    A single task has some dozens of items: of one answer in fifteen more or less it can tell nothing.
    """
    ours, parent = measured[NAME], measured[PARENT]
    kept = 1 - config.regression
    gates = [
        gate(f"{task}: {kept:.0%} of the parent's right answers", f"{NAME}/{task}_retention", share, ">=", kept)
        for task, (share, _) in task_retention(ours, parent).items()
    ]
    allowed = (1 + config.regression) * bits_per_byte(parent.text, PARENT, units.split).value
    bits = bits_per_byte(ours.text, f"{NAME}/bits_per_byte", units.split)
    title = f"bits per byte within {config.regression:.0%} of the parent's"
    lost = lost_tasks(units, ours, parent, kept, config.sigmas)
    single = f"no single task below {kept:.0%} of the parent's right answers by {config.sigmas:g} standard errors"
    return [
        *gates,
        gate(title, bits.name, bits.value, "<=", allowed),
        gate(single, ", ".join(lost) or "no task", len(lost), "<=", 0),
    ]


def _answer_metrics(answers: Mapping[str, Answers], split: str) -> list[Metric]:
    """Nats of the right answers of every model and task; ours beside the parent's."""
    parent = {task: float(np.mean(values)) for task, values in answers[PARENT].items()}
    return [
        mean_metric(f"{name}/{task}_answer_nats", split, values, "nats/token", parent[task] if name == NAME else None)
        for name, by_task in answers.items()
        for task, values in by_task.items()
    ]


def _controls(
    measured: Mapping[str, Measured], answers: Mapping[str, Answers], checkpoint: Checkpoint
) -> tuple[Control, ...]:
    """Ours against the control and the parent on text and tasks; losses with a minus, so that more is better."""
    made, plain = (c.manifest["metrics"] for c in (checkpoint, checkpoint.siblings[PLAIN]))
    spent = (
        f"{plain['tokens']:,.0f} tokens ({plain['passes']:,.0f} passes over one), "
        f"ours {made['tokens']:,.0f} ({made['passes']:,.0f})"
    )
    controls: list[Control] = []
    for name, budget in ((PLAIN, spent), (PARENT, "no further training")):
        theirs, mine = measured[name], measured[NAME]
        controls.append(text_control(name, mine.text, theirs.text, budget))
        for task in TASKS:
            ours, other = (-np.asarray(answers[model][task]) for model in (NAME, name))
            controls.append(paired_control(name, f"−{task}_answer_nats", ours, other, budget))
            controls.append(paired_control(name, NAMES[task], mine.scores[task], theirs.scores[task], budget))
    return tuple(controls)
