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
)
from evaluation.ratio import bits_per_byte
from evaluation.significance import Difference, stratified_bootstrap
from evaluation.specialities import NAMES, Units, held_out, matrix_table
from evaluation.thought_family import Family, Losses, measure_losses, open_family, thinking_places
from evaluation.thought_report import examples, hard_table, length_table, zero_shot_table
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset, Split
from phases.quiet_star.decoder import thinking_model

NAME = "quiet_star"
RIVALS = ("parent", "plain control", "pause control", "off", "shuffled")
"""What thinking is compared with; each has its losses and its answers."""
COLLAPSED = 0.001
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
    where = {split: thinking_places(data, family.tokenizer, split, config) for split in _splits(config)}
    losses = {
        split: {kind: measure_losses(family, places) for kind, places in by_kind.items()}
        for split, by_kind in where.items()
    }
    bad = measured[NAME].not_finite + sum(found.not_finite for part in losses.values() for found in part.values())
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
            *(metric for split, found in losses.items() for metric in _loss_metrics(found, split, config)),
            *(mean_metric(f"{name}/answers_exact_match", units.split, right) for name, right in answers.items()),
            *floor_metrics(data, units, text_floors(data, units)),
        ),
        controls=_controls(tested, answers, checkpoint, config),
        gates=(finite_gate, *_gates(losses["validation"], config), *_regressions(measured, config)),
        tables={
            "thoughts": hard_table(
                {f"{split}, {kind}": found for split, part in losses.items() for kind, found in part.items()}
            ),
            "thought_length": length_table(family, where[config.split], config),
            "zero_shot": zero_shot_table(family, data, units.items["choice"], config),
            **examples(tested, family.tokenizer),
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


def _loss_metrics(found: Mapping[str, Losses], split: str, config: EvaluationConfig) -> list[Metric]:
    """Per kind of row: losses, gains, the weight and the variety of the thoughts; and the gains over all kinds."""
    metrics = []
    for kind, losses in found.items():
        rows, ours, where = losses.rows(), losses.ours, losses.where
        for label, values in (("nats", rows), ("hard_nats", losses.hard_rows())):
            metrics += [mean_metric(f"{name}/{kind}_{label}", split, v, "nats/token") for name, v in values.items()]
        metrics.append(mean_metric(f"{NAME}/{kind}_mixing_weight", split, where.mean(ours.mixing_NP)))
        for name, unit, value in (
            ("thought_entropy", "nats/token", ours.entropy),
            ("distinct_thoughts", "share", ours.distinct),
        ):
            n = ours.mixing_NP.size
            metrics.append(Metric(name=f"{NAME}/{kind}_{name}", split=split, value=value, n=n, unit=unit))
    for rival in RIVALS:
        by = _gain(found, rival, config)
        name = f"{NAME}/gain_over_{rival}"
        metrics.append(Metric(name=name, split=split, value=by.difference, stderr=by.stderr, n=by.n, unit="nats/token"))
    return metrics


def _gain(found: Mapping[str, Losses], rival: str, config: EvaluationConfig) -> Difference:
    """Nats a token that thinking saves against a rival: the mean over the kinds of rows, paired within each."""
    pairs = [(rows[rival], rows["on"]) for rows in (losses.rows() for losses in found.values())]
    return stratified_bootstrap(pairs, config.resamples, config.seed)


def _controls(
    found: Mapping[str, Losses], answers: Mapping[str, Values], checkpoint: Checkpoint, config: EvaluationConfig
) -> tuple[Control, ...]:
    """With thoughts against everything that had the same budget. Losses are negated, so that more is better."""
    trained, thoughts = checkpoint.manifest.get("metrics", {}), checkpoint.manifest["config"].get("thoughts", {})
    same = f"the same {trained.get('steps', 0):.0f} steps and {trained.get('tokens', 0):.0f} tokens"
    samples = f"1 thought a place in training where ours has {thoughts.get('samples', 1)}"
    budgets = dict(zip(RIVALS, ("no training", same, f"{same}; {samples}", *["the same model"] * 2), strict=True))
    controls = []
    for name, budget in budgets.items():
        by = _gain(found, name, config)
        ours, theirs = (float(np.mean([x.rows()[who].mean() for x in found.values()])) for who in ("on", name))
        controls.append(
            Control(
                name=name,
                metric="−nats a token, mean over the kinds of rows",
                ours=-ours,
                control=-theirs,
                difference=by.difference,
                stderr=by.stderr,
                n=by.n,
                budget=budget,
            )
        )
    exact = "exact match on reasoning"
    return (*controls, *(paired_control(n, exact, answers["on"], answers[n], b) for n, b in budgets.items()))


def _gates(found: Mapping[str, Losses], config: EvaluationConfig) -> list[Gate]:
    """With thoughts against without and against another's; whether the thoughts and their weight are alive."""
    gates = []
    for rival, title in (("off", "no thoughts"), ("shuffled", "those of other positions")):
        by = _gain(found, rival, config)
        threshold = config.sigmas * by.stderr
        gates.append(gate(f"thoughts beat {title}", f"{NAME}/gain_over_{rival}", by.difference, ">", threshold))
    # Else a model that was damaged, and that thoughts repair a little, would pass.
    by = _gain(found, "parent", config)
    title, metric = "with thoughts no worse than the parent", f"{NAME}/gain_over_parent"
    gates.append(gate(title, metric, by.difference, ">=", -config.sigmas * by.stderr))
    for kind, losses in found.items():
        weight, metric = float(losses.where.mean(losses.ours.mixing_NP).mean()), f"{NAME}/{kind}_mixing_weight"
        gates += [
            gate(f"{kind}: mixing weight has not collapsed to 0", metric, weight, ">", COLLAPSED),
            gate(f"{kind}: mixing weight has not collapsed to 1", metric, weight, "<", 1 - COLLAPSED),
        ]
    # Few answers are many times the same: kinds of rows differ in how much there is to think.
    widest = max(found, key=lambda kind: found[kind].ours.distinct)
    distinct = found[widest].ours.distinct
    return [*gates, gate("thoughts are not constant", f"{NAME}/{widest}_distinct_thoughts", distinct, ">", CONSTANT)]


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
        lost = float((parent.scores[name].astype(float) - ours.scores[name]).mean())
        allowed = config.regression * float(parent.scores[name].mean())
        title = f"{name} without thoughts lost no more than {config.regression:.0%}"
        gates.append(gate(title, f"{NAME}/{NAMES[name]}_lost", lost, "<=", allowed))
    return gates
