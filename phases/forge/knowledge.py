"""What a finished model knows about itself: its later states from its earlier ones, and what it wrote itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from phases.dataset import Dataset
from phases.forge.body import Body
from phases.forge.config import ForgeTrainingConfig
from phases.forge.dreams import dream, store_prompts
from phases.forge.history import SelfKnowledge
from phases.forge.self_model import SelfModelHead, prediction_r2, recognition_accuracy, self_states

ROWS = 8
"""Validation blocks that are read."""


@torch.no_grad()
def self_knowledge(
    body: Body, head: SelfModelHead, config: ForgeTrainingConfig, data: Dataset, dreamt: bool
) -> SelfKnowledge:
    """R² on validation text, and recognition of dreams from validation prompts if it `dreamt`."""
    model, text = body.frozen(), np.asarray(data.blocks("validation", "text")[:ROWS]).astype(np.int64)
    tokens_BT = torch.from_numpy(text)[:, :-1]
    _, source_BTD, target_BTD = self_states(model, head, tokens_BT)
    found = prediction_r2(head, source_BTD, target_BTD, tokens_BT)
    known = SelfKnowledge(
        rows=len(text),
        r2=found.r2,
        copy_r2=found.copy,
        scaled_copy_r2=found.linear_copy,
        target_variance=found.variance,
    )
    if not dreamt or not config.self_model.temperature:
        return known
    mix, seed = config.mix.model_dump(), config.seed
    prompts = store_prompts(data, config.dreams, mix, seed, 0, "validation")
    own = dream(model, data.tokenizer, prompts, config.dreams, seed, 0)
    # Every prompt twice: as it went on in the model's own writing, and in the true text.
    texts = [(one.tokens, one.label) for one in own]
    texts += [(one.tokens + one.truth, len(config.dreams.temperatures)) for one in prompts]
    hidden_ND = torch.stack([_last_state(model, tokens) for tokens, _ in texts])
    told = recognition_accuracy(head, hidden_ND, torch.tensor([label for _, label in texts]))
    found_out = {"recognised": told.accuracy, "recognised_stderr": told.standard_error}
    return known.model_copy(update={**found_out, "chance": told.chance, "texts": told.n})


def _last_state(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """(D,) what the language-model head reads at the last token."""
    inputs = torch.tensor([tokens])
    state: torch.Tensor = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state[0, -1]
    return state
