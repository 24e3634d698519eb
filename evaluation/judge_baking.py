"""The judge of phase 6: does the model do without a prompt what it was prompted for, and has it forgotten nothing?

    judge(checkpoint, [parent], data, EvaluationConfig())

On held-out conversations, played with the real tools: the baked model without any prompt against its parent with the
prompts and few-shot examples (it has to be no worse on any kind of conversation, within two standard errors) and
without (better beyond them). Beside them stand the taught model with its prompts, which was baked, and plain
fine-tuning on the same conversations for as many steps. What was not baked is measured as everywhere: perplexity and
right answers may not be more than 5 % worse, calls where none is due not more than 5 %. A ternary model must have
stayed on its lattice.
"""

from collections.abc import Mapping, Sequence

from evaluation.baking_measures import BARE, FEW_SHOT, NAME, PARENT, Found
from evaluation.baking_report import (
    conversation_tables,
    kept_table,
    memory_table,
    persona_table,
    trait_table,
)
from evaluation.config import EvaluationConfig
from evaluation.judgement import Judgement
from evaluation.lattice import lattice_gates
from evaluation.measured import Measured, floor_metrics, item_tables, measure, model_metrics, text_floors
from evaluation.metric import (
    Control,
    Gate,
    Metric,
    finite_check,
    gate,
    paired_control,
)
from evaluation.ratio import perplexity, text_control
from evaluation.retention import TASKS, retention_metrics, task_retention, task_table
from evaluation.specialities import NAMES, Units, held_out, matrix_table
from evaluation.tool_use import open_bench
from phases.baking.kitchen import PLAIN, PROMPTED
from phases.baking.record import Record, read_record
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError


def judge(checkpoint: Checkpoint, parents: Sequence[Checkpoint], data: Dataset, config: EvaluationConfig) -> Judgement:
    """Judge a baking checkpoint. Raises `CheckpointError` when its control or record is missing."""
    if PLAIN not in checkpoint.siblings:
        raise CheckpointError(f"{checkpoint.path}: its control {PLAIN} is missing; run the phase again")
    record, units = read_record(checkpoint.path), held_out(data, config)
    family = {NAME: checkpoint, BARE: parents[0], **checkpoint.siblings}
    models = {name: family[name].model() for name in (NAME, BARE, PLAIN)}
    measured = {NAME: measure(models[NAME], checkpoint.tokenizer(), units, config)}
    finite, finite_gate = finite_check(measured[NAME].not_finite, units.split, len(units.text_NT))
    if not finite_gate.passed:
        return Judgement(metrics=(finite,), gates=(finite_gate,))
    for name in (BARE, PLAIN):
        measured[name] = measure(models[name], family[name].tokenizer(), units, config)
    if PROMPTED in family:
        models[PROMPTED] = family[PROMPTED].model()
    with open_bench(checkpoint, config) as bench:
        found = Found(bench, models, checkpoint.tokenizer(), units, config)
    packed, lattice = lattice_gates(NAME, checkpoint, parents[0], models[NAME])
    ours, parent = measured[NAME], measured[BARE]
    scores = {name: one.scores for name, one in measured.items()}
    return Judgement(
        metrics=(
            finite,
            *model_metrics(NAME, ours, units.split, parent),
            *retention_metrics(NAME, ours, parent, units),
            *model_metrics(BARE, parent, units.split),
            *model_metrics(PLAIN, measured[PLAIN], units.split),
            *found.metrics(units.split),
            *_record_metrics(record),
            *(() if packed is None else packed.metrics(units.split)),
            *floor_metrics(data, units, text_floors(data, units)),
        ),
        controls=(*found.controls(_budgets(checkpoint)), *_text_controls(measured, _budgets(checkpoint))),
        gates=(
            finite_gate,
            *found.gates(config),
            *_no_regression(ours, parent, units, config),
            *_budget(checkpoint),
            *lattice,
        ),
        tables={
            **conversation_tables(found.uses, found.answered),
            "recall after": memory_table(found.recalled),
            **persona_table(found.in_persona, found.divergences),
            **trait_table(found.traits, bench.config.persona),
            "kept": kept_table(record),
            "retention": task_table(units, ours, parent, NAME),
            "matrix": matrix_table(scores),
            **item_tables(units, scores),
        },
    )


def _no_regression(ours: Measured, parent: Measured, units: Units, config: EvaluationConfig) -> list[Gate]:
    """Perplexity and the right answers of each speciality within what the config allows."""
    kept, split = 1 - config.regression, units.split
    before, after = (perplexity(one.text, f"{NAME}/perplexity", split) for one in (parent, ours))
    title = f"perplexity within {config.regression:.0%} of the parent's"
    return [
        gate(title, after.name, after.value, "<=", (1 + config.regression) * before.value),
        *(
            gate(f"{task}: {kept:.0%} of the parent's right answers", f"{NAME}/{task}_retention", share, ">=", kept)
            for task, (share, _) in task_retention(ours, parent).items()
        ),
    ]


def _budget(checkpoint: Checkpoint) -> list[Gate]:
    """The control was trained for at least as many steps."""
    plain = checkpoint.siblings[PLAIN].manifest["metrics"]["steps"]
    return [gate("the control had as many steps", f"{PLAIN}/steps", plain, ">=", _steps(checkpoint))]


def _steps(checkpoint: Checkpoint) -> float:
    """Of teaching and all bakes."""
    taught = checkpoint.siblings.get(PROMPTED)
    steps = 0.0 if taught is None else float(taught.manifest["metrics"]["steps"])
    return steps + sum(bake.steps for bake in read_record(checkpoint.path).bakes)


def _budgets(checkpoint: Checkpoint) -> dict[str, str]:
    plain = checkpoint.siblings[PLAIN].manifest["metrics"]["steps"]
    return {
        PARENT: f"no training; prompt and {FEW_SHOT} examples",
        BARE: "no training, no prompt",
        PLAIN: f"{plain:,.0f} steps on the same conversations without prompts; ours {_steps(checkpoint):,.0f}",
    }


def _text_controls(measured: Mapping[str, Measured], budgets: Mapping[str, str]) -> list[Control]:
    """Ours against the parent and the plain control on what was not baked."""
    controls = []
    for name in (BARE, PLAIN):
        ours, theirs = measured[NAME], measured[name]
        controls.append(text_control(name, ours.text, theirs.text, budgets[name]))
        for task in TASKS:
            controls.append(paired_control(name, NAMES[task], ours.scores[task], theirs.scores[task], budgets[name]))
    return controls


def _record_metrics(record: Record) -> list[Metric]:
    """What was made, taken out and kept; counts have no error."""
    made, out = sum(record.made.values()), sum(sum(reasons.values()) for reasons in record.rejected.values())
    asked, kept = (sum(getattr(bake, name) for bake in record.bakes) for name in ("asked", "kept"))
    counts = {"conversations_made": made, "conversations_rejected": out, "prompted_asked": asked, "prompted_kept": kept}
    return [
        Metric(name=f"{NAME}/{name}", split="train", value=value, n=value, unit="conversations")
        for name, value in counts.items()
    ]
