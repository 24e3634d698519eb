"""Everything that is measured on one model, and on the floors, over the same held-out units.

    forge evaluate CHECKPOINT --data DIR --thoughts on

Bits per byte and perplexity at full and at half depth, exact match, recall, half-depth accuracy, copying, multiple
choice. With thoughts all of them are measured on the thinking model but those at half depth: a thought needs all
layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.choice import Choices, multiple_choice
from evaluation.config import EvaluationConfig
from evaluation.floors import chance, copy_chance, fit_bigram, floor_losses, majority_right
from evaluation.generation import exact_match
from evaluation.judgement import Judgement, Table
from evaluation.language import depth_losses
from evaluation.metric import Metric, Values, mean_metric
from evaluation.ratio import BlockLosses, bits_per_byte, perplexity
from evaluation.specialities import (
    NAMES,
    Scores,
    Units,
    group_table,
    held_out,
    matrix_table,
    recall_table,
    speciality_metrics,
    speciality_scores,
)
from evaluation.thinking import open_model, thinking_losses, without_thoughts
from phases.architecture import decoder_layers
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.errors import DataError
from phases.quiet_star.decoder import Mode
from phases.quiet_star.storage import thinks


@dataclass(frozen=True)
class Measured:
    """One model's figures, per unit."""

    text: BlockLosses
    half: BlockLosses
    """At half depth, without thoughts."""
    scores: Scores
    choices: Choices | None
    copied: Values | None
    """Whether each copying item was said again without a mistake; None when the data has none."""

    @property
    def not_finite(self) -> int:
        """Text blocks with a NaN or infinite loss, at full or half depth."""
        return self.text.not_finite + self.half.not_finite


def measure(model: Any, tokenizer: Any, units: Units, config: EvaluationConfig) -> Measured:
    """Measure a model in evaluation mode. Raises `DataError` when its vocabulary does not hold the data's tokens."""
    largest, vocabulary = int(units.text_NT.max()), int(model.config.vocab_size)
    if largest >= vocabulary:
        raise DataError(
            f"the data has token {largest} but the model's vocabulary ends at {vocabulary - 1}; prepare the data with "
            "this model's tokenizer"
        )
    plain = without_thoughts(model)
    layers = len(decoder_layers(plain))
    text, half = depth_losses(plain, units.text_NT, units.bytes_N, (layers, max(1, layers // 2)))
    if model is not plain:
        text = thinking_losses(model, units.text_NT, units.bytes_N)
    choice, copying = units.items["choice"], units.items["copying"]
    return Measured(
        text=text,
        half=half,
        scores=speciality_scores(model, tokenizer, units, config.batch),
        choices=multiple_choice(model, tokenizer, choice, config.batch) if choice else None,
        copied=exact_match(model, tokenizer, copying, config.batch).right_N if copying else None,
    )


def model_metrics(model: str, ours: Measured, split: str, parent: Measured | None = None) -> list[Metric]:
    """The model's metrics, each next to its parent's. Losses must be finite."""
    metrics = [*_text_metrics(model, ours, split), *speciality_metrics(model, ours.scores, split)]
    if ours.choices is not None:
        metrics.append(mean_metric(f"{model}/choice_accuracy", split, ours.choices.right_N))
        metrics.append(mean_metric(f"{model}/choice_accuracy_sum", split, ours.choices.right_sum_N))
    if ours.copied is not None:
        metrics.append(mean_metric(f"{model}/copying_exact_match", split, ours.copied))
    if parent is None:
        return metrics
    before = {metric.name: metric.value for metric in model_metrics(model, parent, split)}
    return [metric.model_copy(update={"parent": before.get(metric.name)}) for metric in metrics]


def _text_metrics(model: str, ours: Measured, split: str) -> list[Metric]:
    return [
        bits_per_byte(ours.text, f"{model}/bits_per_byte", split),
        perplexity(ours.text, f"{model}/perplexity", split),
        bits_per_byte(ours.half, f"{model}/half_depth_bits_per_byte", split),
    ]


def text_floors(data: Dataset, units: Units) -> dict[str, BlockLosses]:
    """Losses of uniform, unigram and bigram, fitted on the training text, on the same blocks."""
    bigram = fit_bigram(data.blocks("train", "text"), data.vocabulary)
    return floor_losses(bigram, units.text_NT.numpy(), units.bytes_N)


def floor_metrics(data: Dataset, units: Units, text: dict[str, BlockLosses]) -> list[Metric]:
    """The floors of every metric: language models that understand nothing, chance, the majority answer."""
    metrics = [bits_per_byte(losses, f"floor:{name}/bits_per_byte", units.split) for name, losses in text.items()]
    for name in ("reasoning", "memory"):
        right = majority_right(data.items("train", name), units.items[name])
        metrics.append(mean_metric(f"floor:majority/{NAMES[name]}", units.split, right))
    copied = copy_chance(units.items["memory"])
    metrics.append(mean_metric(f"floor:copy any value/{NAMES['memory']}", units.split, copied))
    if units.items["choice"]:
        metrics.append(mean_metric("floor:chance/choice_accuracy", units.split, chance(units.items["choice"])))
    return metrics


def item_tables(units: Units, by_model: dict[str, Scores]) -> dict[str, Table]:
    """Reasoning by task and by difficulty, recall by number of pairs."""
    reasoning = {model: scores["reasoning"] for model, scores in by_model.items()}
    memory = {model: scores["memory"] for model, scores in by_model.items()}
    items = units.items["reasoning"]
    tables = {
        "reasoning": group_table("Reasoning by task", "task", items, reasoning, lambda item: (item.task,)),
        "difficulty": group_table(
            "Reasoning by difficulty",
            "task, difficulty",
            items,
            reasoning,
            lambda item: (item.task, item.difficulty),
        ),
        "memory": group_table("Memory by task", "task", units.items["memory"], memory, lambda item: (item.task,)),
    }
    recall = recall_table(units.items["memory"], memory)
    return tables if recall is None else {**tables, "recall": recall}


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    data: Dataset,
    config: EvaluationConfig,
    names: Sequence[str] = (),
    thoughts: Mode = "off",
) -> Judgement:
    """Metrics, floors and tables of one checkpoint and of its siblings called `names`; no gates.

    Siblings that cannot think are measured without thoughts; when the checkpoint itself cannot, it is an error.
    """
    units = held_out(data, config)
    siblings = checkpoint.siblings if names else {}
    family = {"model": checkpoint, **{name: siblings[name] for name in names}}
    measured = {}
    for name, c in family.items():
        model = open_model(c, thoughts if name == "model" or thinks(c.path) else "off", config.seed)
        measured[name] = measure(model, c.tokenizer(), units, config)
    broken = [name for name, m in measured.items() if m.not_finite]
    if broken:
        raise DataError(f"{checkpoint.path}: {', '.join(broken)} has NaN or infinite losses; it cannot be measured")
    scores = {name: m.scores for name, m in measured.items()}
    metrics = [metric for name, m in measured.items() for metric in model_metrics(name, m, units.split)]
    tables = {"matrix": matrix_table(scores), **item_tables(units, scores)}
    if thoughts != "off":
        metrics, tables["matrix"] = _half_depth_is_plain(metrics, tables["matrix"])
    return Judgement(metrics=(*metrics, *floor_metrics(data, units, text_floors(data, units))), tables=tables)


def _half_depth_is_plain(metrics: Sequence[Metric], matrix: Table) -> tuple[list[Metric], Table]:
    """The same under names that say that nothing at half depth was thought about."""
    renamed = [
        metric.model_copy(update={"name": f"{metric.name} (no thoughts)"}) if "/half_depth" in metric.name else metric
        for metric in metrics
    ]
    return renamed, matrix.model_copy(update={"title": f"{matrix.title}; adaptive: half depth, no thoughts"})


def mean_of_specialities(scores: Scores) -> float:
    """Mean over the specialities of the mean over their units."""
    return float(np.mean([np.mean(values) for values in scores.values()]))
