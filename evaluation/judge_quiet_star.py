"""The judge of phase 3: do the thoughts help, and is it what they say that helps?

    judge(checkpoint, [parent], data, EvaluationConfig())

The thinking model was reloaded from disk. With thoughts it has to predict better than without and than with thoughts
of other positions, each by more than two standard errors on the validation split; without thoughts it must not have
become worse than the parent. The controls (the checkpoint's siblings) had the same rows and steps: plain language
modelling, and pause tokens. All of it is measured again on the test split, which decides nothing here but the
regression.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.config import EvaluationConfig
from evaluation.generation import exact_match
from evaluation.judgement import Judgement
from evaluation.language import spread
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
    standard_error,
)
from evaluation.ratio import bits_per_byte
from evaluation.specialities import NAMES, Units, held_out, matrix_table
from evaluation.thought_family import Family, Losses, measure_losses, open_family
from evaluation.thought_report import examples, hard_table, length_table, zero_shot_table
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset, Split
from phases.quiet_star.decoder import thinking_model

NAME = "quiet_star"
COLLAPSED = 0.01
"""A mean mixing weight this close to 0 or 1 has collapsed: thoughts, or the text, are ignored."""
CONSTANT = 0.05
"""Thoughts of which fewer than this share are distinct have become constant."""


def judge(checkpoint: Checkpoint, parents: Sequence[Checkpoint], data: Dataset, config: EvaluationConfig) -> Judgement:
    """Judge a quiet_star checkpoint. Raises `CheckpointError` when a control or the mixing head is missing."""
    family = open_family(checkpoint, parents)
    units = held_out(data, config)
    measured = {
        name: measure(model, family.tokenizer, units, config)
        for name, model in ((NAME, family.thinker.model), ("parent", family.parent))
    }
    losses = {split: measure_losses(family, data, split, config) for split in _splits(config)}
    bad = measured[NAME].not_finite + sum(int((~np.isfinite(x.ours.on_NP)).any(1).sum()) for x in losses.values())
    finite, finite_gate = finite_check(bad, units.split, len(units.text_NT))
    if not finite_gate.passed:
        return Judgement(metrics=(finite,), gates=(finite_gate,))
    answers = _answers(family, units, config)
    tested = losses[config.split]
    return Judgement(
        metrics=(
            finite,
            *model_metrics(NAME, measured[NAME], units.split, measured["parent"]),
            *model_metrics("parent", measured["parent"], units.split),
            *(metric for split, found in losses.items() for metric in _loss_metrics(found, split)),
            *(mean_metric(f"{name}/answers_exact_match", units.split, right) for name, right in answers.items()),
            *floor_metrics(data, units, text_floors(data, units)),
        ),
        controls=_controls(tested, answers, checkpoint),
        gates=(finite_gate, *_gates(losses["validation"], config), *_regressions(measured, config)),
        tables={
            "thoughts": hard_table({split: (found.rows(), found.hard_rows()) for split, found in losses.items()}),
            "thought_length": length_table(family.thinker, family.thinking, tested.where, config),
            "zero_shot": zero_shot_table(
                family.thinker, family.thinking, family.tokenizer, data, units.items["choice"], config
            ),
            **examples(tested.where, tested.ours, family.tokenizer),
            "matrix": matrix_table({name: m.scores for name, m in measured.items()}),
            **item_tables(units, {name: m.scores for name, m in measured.items()}),
        },
    )


def _splits(config: EvaluationConfig) -> list[Split]:
    """The split that decides, and the one that is reported."""
    return ["validation"] if config.split == "validation" else ["validation", config.split]


def _answers(family: Family, units: Units, config: EvaluationConfig) -> dict[str, Values]:
    """Right or wrong on the same held-out reasoning items, decoded greedily with a thought before every token."""
    every = units.items["reasoning"]
    items = [every[i] for i in spread(len(every), config.thought_items)]
    at_last = family.thinking.model_copy(update={"everywhere": False})
    models = {
        "parent": family.parent,
        "plain control": family.plain,
        "pause control": thinking_model(family.pause, at_last.model_copy(update={"pause": True})),
        "off": family.thinker.model,
        "on": thinking_model(family.thinker, at_last),
        "shuffled": thinking_model(family.thinker, at_last.model_copy(update={"mode": "shuffled"})),
    }
    return {name: exact_match(model, family.tokenizer, items, config.batch).right_N for name, model in models.items()}


def _loss_metrics(found: Losses, split: str) -> list[Metric]:
    rows, hard = found.rows(), found.hard_rows()
    metrics = [mean_metric(f"{name}/nats", split, v, "nats/token") for name, v in rows.items()]
    metrics += [mean_metric(f"{name}/hard_nats", split, v, "nats/token") for name, v in hard.items()]
    ours = found.ours
    metrics.append(mean_metric(f"{NAME}/mixing_weight", split, found.where.mean(ours.mixing_NP)))
    metrics.append(mean_metric(f"{NAME}/thought_gain", split, rows["off"] - rows["on"], "nats/token"))
    metrics.append(
        mean_metric(f"{NAME}/thought_gain_over_shuffled", split, rows["shuffled"] - rows["on"], "nats/token")
    )
    positions = ours.mixing_NP.size
    metrics.append(
        Metric(name=f"{NAME}/thought_entropy", split=split, value=ours.entropy, n=positions, unit="nats/token")
    )
    metrics.append(
        Metric(name=f"{NAME}/distinct_thoughts", split=split, value=ours.distinct, n=positions, unit="share")
    )
    return metrics


def _controls(found: Losses, answers: Mapping[str, Values], checkpoint: Checkpoint) -> tuple[Control, ...]:
    """With thoughts against everything that had the same budget; losses are negated, so that more is better."""
    trained = checkpoint.manifest.get("metrics", {})
    same = f"the same {trained.get('steps', 0):.0f} steps and {trained.get('tokens', 0):.0f} tokens"
    budgets = {
        "plain control": same,
        "pause control": f"{same}, as many thought tokens",
        "off": "the same model",
        "shuffled": "the same model",
    }
    rows = found.rows()
    return (
        *(paired_control(name, "negated nats a token", -rows["on"], -rows[name], b) for name, b in budgets.items()),
        *(paired_control(name, "exact match", answers["on"], answers[name], b) for name, b in budgets.items()),
    )


def _gates(found: Losses, config: EvaluationConfig) -> list[Gate]:
    """With thoughts against without and against another's; whether the thoughts and their weight are alive."""
    rows, ours = found.rows(), found.ours
    gates = []
    for name in ("off", "shuffled"):
        gained = rows[name] - rows["on"]
        error = standard_error(gained) or 0.0
        title = f"thoughts beat {'none' if name == 'off' else 'those of other positions'}"
        gates.append(gate(title, "nats a token, validation", float(gained.mean()), ">", config.sigmas * error))
    weight = float(ours.mixing_NP.mean())
    metric = f"{NAME}/mixing_weight"
    gates.append(
        gate("thoughts are not ignored (mixing weight has not collapsed to 0)", metric, weight, ">", COLLAPSED)
    )
    gates.append(gate("text is not ignored (mixing weight has not collapsed to 1)", metric, weight, "<", 1 - COLLAPSED))
    gates.append(gate("thoughts are not constant", f"{NAME}/distinct_thoughts", ours.distinct, ">", CONSTANT))
    return gates


def _regressions(measured: Mapping[str, Measured], config: EvaluationConfig) -> list[Gate]:
    """Without thoughts: bits per byte and exact match against the parent's."""
    ours, parent = measured[NAME], measured["parent"]
    bits = bits_per_byte(ours.text, f"{NAME}/bits_per_byte", config.split)
    before = bits_per_byte(parent.text, "parent/bits_per_byte", config.split)
    gates = [
        gate(
            "no worse than the parent without thoughts",
            bits.name,
            bits.value,
            "<=",
            (1 + config.regression) * before.value,
        )
    ]
    for name in ("reasoning", "memory"):
        lost = parent.scores[name].astype(float) - ours.scores[name]
        allowed = config.regression * float(parent.scores[name].mean()) + config.sigmas * (standard_error(lost) or 0.0)
        title = f"{name} without thoughts lost no more than {config.regression:.0%} (beyond noise)"
        gates.append(gate(title, f"{NAME}/{NAMES[name]}", float(lost.mean()), "<=", allowed))
    return gates
