"""Does each ingredient of forge training earn its place? Every one alone, every one left out, none at all, by seeds.

    python -m tests.benchmarks.forge_ablation checkpoints/laptop/bitnet checkpoints/laptop/data --seeds 4 5 6

Measured on the validation split, which is what defaults may be chosen by. A line a model is added to
`checkpoints/forge_ablation.jsonl`; what stands there is not run again, so it can be stopped, or shared out by seeds.
About two minutes a model on one core.
"""

import argparse
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.config import EvaluationConfig
from evaluation.language import depth_losses
from evaluation.ratio import bits_per_byte
from evaluation.specialities import held_out
from flows.quiet import settle_environment
from phases.architecture import decoder_layers
from phases.checkpoint import Checkpoint, open_checkpoint
from phases.dataset import Dataset, open_dataset
from phases.forge.complexity import activation_rank, matrices, mean_rank, weight_width
from phases.forge.config import ForgeTrainingConfig
from phases.forge.stages import TRAIN_COST, StagedTraining
from phases.phase import ignore_metrics
from phases.probe import answer_losses, encode_items

OUT = Path("checkpoints/forge_ablation.jsonl")
INGREDIENTS = ("chaos", "dreams", "self_model", "grokfast")
ON = ("chaos", "dreams", "self_model")
VARIANTS: Mapping[str, tuple[tuple[str, ...], float]] = {
    "none": ((), 1.0),
    "chaos": (("chaos",), 1.0),
    "dreams": (("dreams",), 1.0),
    "self_model": (("self_model",), 1.0),
    "grokfast": (("grokfast",), 1.0),
    "chaos, dreams, self_model": (ON, 1.0),
    "without chaos": (("dreams", "self_model"), 1.0),
    "without dreams": (("chaos", "self_model"), 1.0),
    "without self_model": (("chaos", "dreams"), 1.0),
    "none, at the cost of all": ((), 1.1),
}
"""Name to (ingredients, share of the steps): the three together cost a tenth more than plain training."""


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.forge_ablation")
    parser.add_argument("parent", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[4, 5, 6])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    settle_environment()
    warnings.simplefilter("ignore")
    parent, data = open_checkpoint(arguments.parent), open_dataset(arguments.data)
    for seed in arguments.seeds:
        for variant in arguments.variants:
            if (variant, seed) not in {(row["variant"], row["seed"]) for row in read(arguments.out)}:
                row = {"variant": variant, "seed": seed, **run(parent, data, variant, seed, arguments.steps)}
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), file=sys.stderr)
    print(table(read(arguments.out)))


def read(path: Path) -> list[dict[str, Any]]:
    """The models that are done."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def run(parent: Checkpoint, data: Dataset, variant: str, seed: int, steps: int) -> dict[str, float]:
    """Train one model and measure it."""
    chosen, share = VARIANTS[variant]
    base = ForgeTrainingConfig(seed=seed, patience=1000)
    training = base.training.model_copy(update={"steps": round(steps * share)})
    parts = {name: getattr(base, name).model_copy(update={"enabled": name in chosen}) for name in INGREDIENTS}
    config = base.model_copy(update={**parts, "training": training})
    folder = Path(tempfile.mkdtemp())
    try:
        staged = StagedTraining(parent, config, data, folder, ignore_metrics)
        history = staged.run()
    finally:
        shutil.rmtree(folder)
    figures = measure(staged.body.frozen(), data)
    figures["cost"] = history.cost / (TRAIN_COST * base.training.batch_rows * data.block_tokens * steps)
    return figures


def measure(model: Any, data: Dataset) -> dict[str, float]:
    """Losses, right answers and complexity on validation data."""
    config = EvaluationConfig(split="validation")
    units, layers = held_out(data, config), len(decoder_layers(model))
    text = depth_losses(model, units.text_NT, units.bytes_N, (layers,))[0]
    figures = {"bits_per_byte": bits_per_byte(text, "", "").value}
    for task in ("reasoning", "memory"):
        nats, right = answer_losses(model, encode_items(data.tokenizer, units.items[task]))
        figures |= {f"{task}_nats": float(nats.mean()), f"{task}_right": float(right.mean())}
    with torch.no_grad():
        hidden = model.base_model(input_ids=units.text_NT[:8, :-1], use_cache=False).last_hidden_state.flatten(0, 1)
    inner = matrices(model)
    figures |= {"width": weight_width(inner["all"]).deviation, "matrix_rank": mean_rank(inner["layers"])}
    return {**figures, "state_rank": activation_rank(hidden) / hidden.shape[-1]}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Means over the seeds, and differences from `none` of the same seed with their standard error over seeds."""
    none = {row["seed"]: row for row in rows if row["variant"] == "none"}
    names = [name for name in (rows[0] if rows else {}) if name not in ("variant", "seed")]
    lines = [" | ".join(["variant", "seeds", *names])]
    for variant in VARIANTS:
        own = [row for row in rows if row["variant"] == variant]
        if not own:
            continue
        cells = [variant, str(len(own))]
        for name in names:
            mean = np.mean([row[name] for row in own])
            apart = [row[name] - none[row["seed"]][name] for row in own if row["seed"] in none]
            error = np.std(apart, ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else float("nan")
            beside = f" ({np.mean(apart):+.4f} ± {error:.4f})" if apart and variant != "none" else ""
            cells.append(f"{mean:.4f}{beside}")
        lines.append(" | ".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
