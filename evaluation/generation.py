"""Exact match by real greedy decoding: batched, left-padded, with a KV cache, stopping at end-of-text.

    answers = exact_match(model, tokenizer, data.items("test", "reasoning"))

Token-identical to `model.generate(do_sample=False)` of transformers on each prompt alone (tested), tokens that the
generation config suppresses included. Prompts of similar length share a batch, so there is little padding; a finished
row leaves the batch, so a long answer does not cost the short ones. Every item may write as many tokens as the longest
gold completion of the set needs, plus `MARGIN`. A thinking model thinks before each token that it writes; which
thoughts it draws depends on who shares the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from evaluation.thinking import at_last_position
from phases.tasks.item import Item, extract_answer, render_completion, render_prompt

MARGIN = 8
"""Tokens that a completion may be longer than the longest gold one."""


@dataclass(frozen=True)
class Answers:
    """What a model wrote for each item, and whether the answer in it is right."""

    texts: list[str]
    right_N: npt.NDArray[np.bool_]


def exact_match(
    model: Any, tokenizer: Any, items: Sequence[Item], batch: int = 64, max_new_tokens: int | None = None
) -> Answers:
    """Decode every item greedily and compare `extract_answer` with its answer, in the items' order."""
    prompts = [encode(tokenizer, render_prompt(tokenizer, item.prompt)) for item in items]
    limit = max_new_tokens or token_limit(tokenizer, items)
    written = greedy(model, prompts, limit, stop_ids(model, tokenizer), batch)
    texts = [str(tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in written]
    right = [extract_answer(text) == item.answer for text, item in zip(texts, items, strict=True)]
    return Answers(texts, np.array(right, dtype=np.bool_))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a rendered text; its special tokens are already in it."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def token_limit(tokenizer: Any, items: Sequence[Item]) -> int:
    """Tokens of the longest gold completion, end-of-text included, plus `MARGIN`."""
    lengths = [len(encode(tokenizer, render_completion(tokenizer, item))) for item in items]
    return max(lengths, default=0) + MARGIN


def stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """End-of-text ids: the tokenizer's and those of the model's generation config (chat models have several)."""
    own = model.generation_config.eos_token_id
    several = own if isinstance(own, list) else [own]
    return {int(i) for i in (*several, tokenizer.eos_token_id) if i is not None}


@torch.inference_mode()
def greedy(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: set[int], batch: int = 64
) -> list[list[int]]:
    """The greedy continuation of each prompt, the stop token included. Raises `ValueError` for an empty prompt."""
    if not all(prompts):
        raise ValueError("a prompt has no tokens; decoding needs at least one to start from")
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    result: list[list[int]] = [[] for _ in prompts]
    with at_last_position(model):
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            written = _decode([prompts[i] for i in chosen], model, max_new_tokens, stop)
            for i, tokens in zip(chosen, written, strict=True):
                result[i] = tokens
    return result


def _decode(prompts: Sequence[Sequence[int]], model: Any, max_new_tokens: int, stop: set[int]) -> list[list[int]]:
    """One batch. `alive` maps the rows that are still in the batch to the prompts' order."""
    tokens_BT, mask_BT = left_pad(prompts, model.device)
    position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    suppressed = list(model.generation_config.suppress_tokens or [])
    cache = DynamicCache(config=model.config)
    written: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    for _ in range(max_new_tokens):
        hidden_BTD = model.base_model(
            input_ids=tokens_BT, attention_mask=mask_BT, position_ids=position_BT, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits_BV = model.get_output_embeddings()(hidden_BTD[:, -1])
        logits_BV[:, suppressed] = float("-inf")
        next_B = logits_BV.argmax(-1)
        for row, token in zip(alive, next_B.tolist(), strict=True):
            written[row].append(token)
        going = [i for i, token in enumerate(next_B.tolist()) if token not in stop]
        if not going:
            break
        if len(going) < len(alive):
            keep = torch.tensor(going, device=model.device)
            cache.batch_select_indices(keep)
            next_B, mask_BT, position_BT = next_B[keep], mask_BT[keep], position_BT[keep]
            alive = [alive[i] for i in going]
        tokens_BT, position_BT = next_B[:, None], position_BT[:, -1:] + 1
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(going), 1)], 1)
    return written


def left_pad(prompts: Sequence[Sequence[int]], device: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) token ids, zeros on the left, and the (B, T) mask that hides the zeros."""
    width = max(len(prompt) for prompt in prompts)
    tokens = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
