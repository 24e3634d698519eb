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
from typing import Any

import numpy as np

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
    Values,
    finite_check,
    gate,
    mean_metric,
    paired_control,
)
from evaluation.persona_style import PersonaClassifier, divergence, opposite, prompt_of, replies, traits_shown
from evaluation.ratio import perplexity, text_control
from evaluation.retention import TASKS, retention_metrics, task_retention, task_table
from evaluation.significance import paired_bootstrap
from evaluation.specialities import NAMES, Units, held_out, matrix_table
from evaluation.tool_use import Bench, Used, open_bench
from phases.agent.writing import NO_PROMPT, Prompt
from phases.baking.kitchen import PLAIN, PROMPTED
from phases.baking.record import Record, read_record
from phases.baking.scenario import TOOL_KINDS, Kind, holds
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError

NAME, PARENT, BARE = "baking", "parent prompted", "parent"
FEW_SHOT = 2
"""Examples that the prompted parent is shown."""
RECALLED = ((0, False), (4, False), (12, False), (0, True))
"""Turns between a fact and its question, and whether everything but the memory's file was lost in between."""
Uses = dict[str, dict[Kind, Used]]


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
        found = _Found(bench, models, checkpoint.tokenizer(), units, config)
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


class _Found:
    """Everything that was measured in conversations."""

    def __init__(
        self, bench: Bench, models: Mapping[str, Any], tokenizer: Any, units: Units, config: EvaluationConfig
    ) -> None:
        self.uses: Uses = {}
        ours, bare, plain = models[NAME], models[BARE], models[PLAIN]
        teacher = models.get(PROMPTED, bare)
        kinds = [kind for kind in TOOL_KINDS if kind in bench.test]
        for name, model, prompted in (
            (NAME, ours, None),
            (PARENT, bare, FEW_SHOT),
            (BARE, bare, None),
            (PROMPTED, teacher, 0),
            (PLAIN, plain, None),
        ):
            if name == PROMPTED and PROMPTED not in models:
                continue
            prompts = {kind: NO_PROMPT if prompted is None else _prompt(bench, kind, prompted) for kind in kinds}
            self.uses[name] = {kind: bench.measure(model, tokenizer, kind, prompts[kind]) for kind in kinds}
        without = {kind: bench.measure(ours, tokenizer, kind, calls=False).replies for kind in kinds}
        self.answered = {
            kind: np.array([_holds(bench, kind, i, text) for i, text in enumerate(texts)])
            for kind, texts in without.items()
        }
        self.free = {kind: bench.measure(ours, tokenizer, kind, constrained=False) for kind in kinds[:1]}
        items = [item for task in TASKS for item in units.items[task][:64]]
        self.false_calls = bench.false_calls(ours, tokenizer, items)
        self.recalled = (
            {case: bench.recall_after(ours, tokenizer, *case, config.recall_conversations) for case in RECALLED}
            if "memory" in bench.test
            else {}
        )
        self.in_persona: dict[str, Values] = {}
        self.divergences: dict[str, dict[str, Values]] = {}
        self.traits: dict[str, dict[str, Values]] = {}
        if "persona" in bench.test:
            self._persona(bench, {**models, PROMPTED: teacher}, tokenizer, config)
        self.kinds: tuple[Kind, ...] = tuple(kinds)

    def _persona(self, bench: Bench, models: Mapping[str, Any], tokenizer: Any, config: EvaluationConfig) -> None:
        persona, teacher = bench.config.persona, models[PROMPTED]
        asked, learnt = bench.scenarios("persona"), [one.scenario for one in bench.train["persona"]]
        said = [replies(bench, teacher, tokenizer, learnt, prompt_of(one)) for one in (persona, opposite(persona))]
        classify = PersonaClassifier(said[0], [*said[1], *replies(bench, models[BARE], tokenizer, learnt, NO_PROMPT)])
        texts = {
            f"{PROMPTED}, with prompt": replies(bench, teacher, tokenizer, asked, prompt_of(persona)),
            f"{PROMPTED}, opposite prompt": replies(bench, teacher, tokenizer, asked, prompt_of(opposite(persona))),
            **{name: replies(bench, models[name], tokenizer, asked, NO_PROMPT) for name in (NAME, BARE, PLAIN)},
            PARENT: replies(bench, models[BARE], tokenizer, asked, _prompt(bench, "persona", FEW_SHOT)),
        }
        texts[f"{NAME}, after {config.stable_turns} turns"] = bench.late_replies(
            models[NAME], tokenizer, config.stable_turns, min(24, config.recall_conversations)
        )
        self.in_persona = {name: classify(found) for name, found in texts.items()}
        self.traits = {name: traits_shown(found, persona) for name, found in texts.items()}
        students = {name: models[name] for name in (NAME, BARE, PLAIN, PROMPTED)}
        prompts = {"tools": _prompt(bench, "python", 0), "persona": prompt_of(persona)}
        for what, prompt in prompts.items():
            kinds = ("persona",) if what == "persona" else TOOL_KINDS
            talks = [one.played.messages for kind in kinds for one in bench.test.get(kind, ())[:16]]
            self.divergences[what] = {
                name: divergence(teacher, student, tokenizer, talks, prompt) for name, student in students.items()
            }

    def values(self, name: str) -> dict[str, Values]:
        """What counts of a model, by kind: conversations that came out right, answers in the persona."""
        found = {str(kind): used.right for kind, used in self.uses.get(name, {}).items()}
        return {**found, "persona": self.in_persona[name]} if name in self.in_persona else found

    def metrics(self, split: str) -> list[Metric]:
        """Every figure with n and standard error; ours beside the unprompted parent's."""
        metrics, before = [], self.values(BARE)
        for name in (NAME, PARENT, BARE, PROMPTED, PLAIN):
            for kind, used in self.uses.get(name, {}).items():
                for what in ("valid", "executed", "exact", "right"):
                    parent = None if name != NAME else float(np.mean(getattr(self.uses[BARE][kind], what)))
                    metric = mean_metric(f"{name}/{kind}_{what}", split, getattr(used, what), parent=parent)
                    metrics.append(metric)
        for name, values in self.in_persona.items():
            parent = float(np.mean(before["persona"])) if name == NAME else None
            metrics.append(mean_metric(f"{name}/persona_classified", split, values, parent=parent))
        for what, by_model in self.divergences.items():
            metrics += [mean_metric(f"{n}/{what}_kl_to_prompted", split, v, "nats/token") for n, v in by_model.items()]
        for kind, right in self.answered.items():
            metrics.append(mean_metric(f"{NAME}/{kind}_right_without_tools", split, right))
        for kind, used in self.free.items():
            metrics.append(mean_metric(f"{NAME}/{kind}_valid_unconstrained", split, used.valid))
        for (turns, restart), right in self.recalled.items():
            name = f"{NAME}/recall_after_{'restart' if restart else f'{turns}_turns'}"
            metrics.append(mean_metric(name, split, right))
        return [*metrics, mean_metric(f"{NAME}/false_calls", split, self.false_calls)]

    def controls(self, budgets: Mapping[str, str]) -> list[Control]:
        """Ours against the parent with and without its prompts, and against plain fine-tuning."""
        ours = self.values(NAME)
        return [
            paired_control(name, what, ours[what], theirs, budgets[name])
            for name in (PARENT, BARE, PLAIN)
            for what, theirs in self.values(name).items()
        ]

    def gates(self, config: EvaluationConfig) -> list[Gate]:
        """No worse than the prompted parent, better than the bare one, calls only where they are due."""
        gates, ours = [], self.values(NAME)
        for what, theirs in self.values(PARENT).items():
            found = paired_bootstrap(ours[what], theirs, config.resamples, config.seed)
            title, metric = f"{what}: no worse than the prompted parent", f"{NAME}/{what} less {PARENT}'s"
            gates.append(gate(title, metric, found.difference, ">=", -config.sigmas * found.stderr))
        for what, theirs in self.values(BARE).items():
            found = paired_bootstrap(ours[what], theirs, config.resamples, config.seed)
            title, metric = f"{what}: better than the parent without a prompt", f"{NAME}/{what} less {BARE}'s"
            gates.append(gate(title, metric, found.difference, ">", config.sigmas * found.stderr))
        rate = float(np.mean(self.false_calls))
        return [*gates, gate("calls where none is due", f"{NAME}/false_calls", rate, "<=", config.regression)]


def _prompt(bench: Bench, kind: Kind, examples: int) -> Prompt:
    """What asks for a kind of conversation, with examples of it."""
    shown = tuple(message for one in bench.train.get(kind, ())[:examples] for message in one.played.messages)
    if kind == "persona":
        return Prompt(system=prompt_of(bench.config.persona).system, examples=shown)
    return Prompt(tools=bench.tools, examples=shown)


def _holds(bench: Bench, kind: Kind, index: int, text: str) -> bool:
    """Whether the answer stands in what was said."""
    return holds(text, bench.scenarios(kind)[index].turns[-1].answer)


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
