"""A model in memory for lm-evaluation-harness, thoughts included.

Log-likelihoods think at every position, generations at the last one of each step.
"""

from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from evaluation.thinking import at_last_position, without_thoughts


class ThinkingLM(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's own transformers model; with a plain model it is nothing else."""

    def __init__(self, model: Any, tokenizer: Any, batch: int = 64) -> None:
        plain = without_thoughts(model)  # HFLM ties weights and reads the class of what it is given
        super().__init__(pretrained=plain, tokenizer=tokenizer, batch_size=batch, device=str(plain.device))
        self._model = model

    def _model_generate(self, *arguments: Any, **settings: Any) -> torch.Tensor:
        with at_last_position(self._model):
            written: torch.Tensor = super()._model_generate(*arguments, **settings)
            return written
