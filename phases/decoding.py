"""Writing tokens: batched, left-padded, with a KV cache, stopping at end-of-text; greedy or sampled.

    written = decode(model, prompts, [64] * len(prompts), stop_ids(model, tokenizer), likeliest)

Greedy decoding is token-identical to `model.generate(do_sample=False)` of transformers on each prompt alone (tested),
tokens that the generation config suppresses included. Prompts of similar length share a batch, so there is little
padding; a row that has finished leaves it, so a long answer does not cost the short ones.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from transformers import DynamicCache

from phases.tasks.item import Item, render_completion

MARGIN = 8
"""Tokens that a completion may be longer than the longest gold one."""


class Choice(Protocol):
    """Chooses the next token of every row that is still written."""

    def __call__(self, logits_BV: torch.Tensor, index: Sequence[int]) -> torch.Tensor:
        """(B,) token ids; `index` says which of all prompts each row is. Called once for each token of a prompt."""
        ...


def likeliest(logits_BV: torch.Tensor, index: Sequence[int]) -> torch.Tensor:
    """(B,) the likeliest token of each row: greedy decoding."""
    return logits_BV.argmax(-1)


class Sampler:
    """Draws from softmax(logits / temperature) of each row.

    The largest of logits / temperature + Gumbel noise is such a draw (the Gumbel-max trick, arXiv 1411.0030). Each
    prompt has a generator of its own, seeded by the seed and the prompt's index, and takes V numbers from it a token:
    what is drawn for it does not depend on who shares the batch, nor on the batch's size. The logits themselves do,
    by rounding; such a change of ε nats changes a token with a chance of about ε.
    """

    def __init__(self, temperatures: Sequence[float], seed: Sequence[int]) -> None:
        """One temperature a prompt. Raises `ValueError` for one that is not above 0."""
        if not all(temperature > 0 for temperature in temperatures):
            raise ValueError(f"temperatures {sorted(set(temperatures))}: each must be above 0")
        self.temperatures = list(temperatures)
        self.generators = [np.random.default_rng([*seed, i]) for i in range(len(self.temperatures))]

    def __call__(self, logits_BV: torch.Tensor, index: Sequence[int]) -> torch.Tensor:
        """(B,) one draw a row."""
        temperature_B1 = torch.tensor([[self.temperatures[i]] for i in index], dtype=torch.float64)
        noise_BV = np.stack([self.generators[i].gumbel(size=logits_BV.shape[1]) for i in index])
        scaled_BV = logits_BV.double() / temperature_B1.to(logits_BV.device)
        return (scaled_BV + torch.from_numpy(noise_BV).to(logits_BV.device)).argmax(-1)


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
def decode(
    model: Any, prompts: Sequence[Sequence[int]], limits: Sequence[int], stop: set[int], choose: Choice, batch: int = 64
) -> list[list[int]]:
    """The continuation of each prompt by at most its limit of tokens, the stop token included.

    Raises `ValueError` for an empty prompt.
    """
    if not all(prompts):
        raise ValueError("a prompt has no tokens; decoding needs at least one to start from")
    order = sorted((i for i in range(len(prompts)) if limits[i] > 0), key=lambda i: len(prompts[i]))
    written: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch):
        _write(model, prompts, limits, stop, choose, order[start : start + batch], written)
    return written


def _write(
    model: Any,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stop: set[int],
    choose: Choice,
    alive: list[int],
    written: list[list[int]],
) -> None:
    """Append to `written` of one batch; `alive` says which prompts its rows are."""
    tokens_BT, mask_BT = left_pad([prompts[i] for i in alive], model.device)
    position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    suppressed = list(model.generation_config.suppress_tokens or [])
    cache = DynamicCache(config=model.config)
    while True:
        hidden_BTD = model.base_model(
            input_ids=tokens_BT, attention_mask=mask_BT, position_ids=position_BT, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits_BV = model.get_output_embeddings()(hidden_BTD[:, -1])
        logits_BV[:, suppressed] = float("-inf")
        next_B = choose(logits_BV, alive)
        for i, token in zip(alive, next_B.tolist(), strict=True):
            written[i].append(token)
        going = [row for row, i in enumerate(alive) if written[i][-1] not in stop and len(written[i]) < limits[i]]
        if not going:
            return
        if len(going) < len(alive):
            keep = torch.tensor(going, device=model.device)
            cache.batch_select_indices(keep)
            next_B, mask_BT, position_BT = next_B[keep], mask_BT[keep], position_BT[keep]
            alive = [alive[row] for row in going]
        tokens_BT, position_BT = next_B[:, None], position_BT[:, -1:] + 1
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(going), 1)], 1)


def left_pad(prompts: Sequence[Sequence[int]], device: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) token ids, zeros on the left, and the (B, T) mask that hides the zeros."""
    width = max(len(prompt) for prompt in prompts)
    tokens = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
