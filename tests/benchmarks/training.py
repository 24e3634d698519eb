"""Training tokens a second: our loop against Hugging Face's `Trainer` on the same model, data, batch and precision.

Both use AdamW and a warm-up, clip at 1, and predict every token; the Trainer is given what its documentation
recommends for speed (fused AdamW, no evaluation, no saving, no reports).
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, Trainer, TrainingArguments

from phases.cognate.shape import PRESETS, Preset, llama_config
from phases.dataset import Dataset
from phases.training.batches import Mixture
from phases.training.config import TrainingConfig
from phases.training.loop import train
from phases.training.objective import LanguageModelling
from tests.benchmarks.pairs import Comparison, compare


class Blocks(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The text blocks as a map-style data set."""

    def __init__(self, data: Dataset) -> None:
        self.rows = data.blocks("train", "text")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = torch.from_numpy(self.rows[index].astype("int64"))
        return {"input_ids": row, "labels": row}


def ours(model: Any, data: Dataset, steps: int, batch: int, precision: str) -> None:
    """Train with our loop."""
    config = TrainingConfig.parse(
        {"steps": steps, "batch_rows": batch, "optimizer": "adamw", "precision": precision, "save_seconds": 1e9},
        "bench",
    )
    with tempfile.TemporaryDirectory() as folder:
        train(
            LanguageModelling(model), Mixture(data, {"text": 1.0}, 0, 0.0), config, Path(folder), name="bench", seed=0
        )


def trainer(model: Any, data: Dataset, steps: int, batch: int, precision: str) -> None:
    """Train with the Trainer."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            max_steps=steps,
            optim="adamw_torch_fused",
            bf16=precision == "bf16",
            max_grad_norm=1.0,
            warmup_steps=1,
            logging_steps=10,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            use_cpu=not torch.cuda.is_available(),
        )
        Trainer(model=model, args=arguments, train_dataset=Blocks(data)).train()


def run(data: Dataset, preset: Preset, steps: int, batch: int, precision: str, pairs: int) -> Comparison:
    """One comparison at one size."""
    model = LlamaForCausalLM(llama_config(PRESETS[preset], data.vocabulary, 0))
    tokens = steps * batch * data.block_tokens
    return compare(
        f"train {preset}, {precision}",
        "tokens/s",
        tokens,
        lambda: ours(model, data, steps, batch, precision),
        "HF Trainer",
        lambda: trainer(model, data, steps, batch, precision),
        target=1.2,
        pairs=pairs,
    )
