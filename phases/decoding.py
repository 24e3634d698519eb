"""Writing tokens: batched, left-padded, with a KV cache, stopping at end-of-text; greedy or sampled.

    written = decode(model, prompts, [64] * len(prompts), stop_ids(model, tokenizer), likeliest)

Greedy decoding is token-identical to `model.generate(do_sample=False)` of transformers on each prompt alone (tested),
tokens that the generation config suppresses included. Prompts of similar length share a batch, so there is little
padding; a row that has finished leaves it, so a long answer does not cost the short ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


Warp = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(B, V) logits whose softmax is drawn from, of (B, V) logits and (B, 1) temperatures."""


def divided(logits_BV: torch.Tensor, temperature_B1: torch.Tensor) -> torch.Tensor:
    """(B, V) logits / temperature: nothing is cut off."""
    return logits_BV / temperature_B1


class Sampler:
    """Draws from softmax(logits / temperature) of each row, or from what a warp makes of it.

    The largest of logits / temperature + Gumbel noise is such a draw (the Gumbel-max trick, arXiv 1411.0030). Each
    prompt has a generator of its own, seeded by the seed and the prompt's index, and takes V numbers from it a token:
    what is drawn for it does not depend on who shares the batch, nor on the batch's size. The logits themselves do,
    by rounding; such a change of ε nats changes a token with a chance of about ε.
    """

    def __init__(self, temperatures: Sequence[float], seed: Sequence[int], warp: Warp = divided) -> None:
        """One temperature a prompt. Raises `ValueError` for one that is not above 0."""
        if not all(temperature > 0 for temperature in temperatures):
            raise ValueError(f"temperatures {sorted(set(temperatures))}: each must be above 0")
        self.temperatures, self.warp = list(temperatures), warp
        self.generators = [np.random.default_rng([*seed, i]) for i in range(len(self.temperatures))]

    def __call__(self, logits_BV: torch.Tensor, index: Sequence[int]) -> torch.Tensor:
        """(B,) one draw a row."""
        temperature_B1 = torch.tensor([[self.temperatures[i]] for i in index], dtype=torch.float64)
        noise_BV = np.stack([self.generators[i].gumbel(size=logits_BV.shape[1]) for i in index])
        scaled_BV = self.warp(logits_BV.double(), temperature_B1.to(logits_BV.device))
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


@dataclass(frozen=True)
class Text:
    """What was written after a prompt."""

    tokens: list[int]
    logprobs: list[float]
    """Of each token under the model's plain softmax: temperature 1, nothing penalised, cut or forbidden."""


class Rows:
    """Prompts that a model reads side by side, left-padded, into one KV cache."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.tokens_BT, self.mask_BT = left_pad(prompts, model.device)
        self.position_BT = (self.mask_BT.cumsum(1) - 1).clamp(min=0)
        self.cache = DynamicCache(config=model.config)
        self.suppressed = list(model.generation_config.suppress_tokens or [])

    def read(self) -> torch.Tensor:
        """(B, T, D) hidden states of the T tokens that are new: the prompts, or what was appended."""
        hidden_BTD: torch.Tensor = self.model.base_model(
            input_ids=self.tokens_BT,
            attention_mask=self.mask_BT,
            position_ids=self.position_BT,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        return hidden_BTD

    def predict(self, hidden_BD: torch.Tensor) -> torch.Tensor:
        """(B, V) logits after hidden states; −∞ for tokens that the generation config suppresses."""
        logits_BV: torch.Tensor = self.model.get_output_embeddings()(hidden_BD)
        logits_BV[:, self.suppressed] = float("-inf")
        return logits_BV

    def logits(self) -> torch.Tensor:
        """(B, V) logits of the next token of every row."""
        return self.predict(self.read()[:, -1])

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may come several times."""
        if list(rows) == list(range(len(self.mask_BT))):
            return
        keep = torch.tensor(rows, device=self.mask_BT.device)
        self.cache.batch_select_indices(keep)
        self.mask_BT, self.position_BT = self.mask_BT[keep], self.position_BT[keep]

    def append(self, token_B: torch.Tensor) -> None:
        """One more token a row, which the next `read` reads."""
        self.tokens_BT, self.position_BT = token_B[:, None], self.position_BT[:, -1:] + 1
        self.mask_BT = torch.cat([self.mask_BT, self.mask_BT.new_ones(len(token_B), 1)], 1)


Step = Callable[[Rows, Sequence[int]], torch.Tensor]
"""Reads the rows, of which each is the prompt with that index, and chooses the (B,) next tokens."""


def decode(
    model: Any, prompts: Sequence[Sequence[int]], limits: Sequence[int], stop: set[int], choose: Choice, batch: int = 64
) -> list[list[int]]:
    """The continuation of each prompt by at most its limit of tokens, the stop token included.

    Raises `ValueError` for an empty prompt.
    """
    return decode_steps(model, prompts, limits, stop, lambda rows, index: choose(rows.logits(), index), batch)


@torch.inference_mode()
def decode_steps(
    model: Any, prompts: Sequence[Sequence[int]], limits: Sequence[int], stop: set[int], step: Step, batch: int = 64
) -> list[list[int]]:
    """`decode` for whoever wants to see more of the rows than the logits of the next token."""
    written: list[list[int]] = [[] for _ in prompts]
    for alive in batches(prompts, limits, batch):
        rows = Rows(model, [prompts[i] for i in alive])
        while True:
            next_B = step(rows, alive)
            for i, token in zip(alive, next_B.tolist(), strict=True):
                written[i].append(token)
            going = [row for row, i in enumerate(alive) if written[i][-1] not in stop and len(written[i]) < limits[i]]
            if not going:
                break
            if len(going) < len(alive):
                rows.select(going)
                next_B, alive = next_B[going], [alive[row] for row in going]
            rows.append(next_B)
    return written


def batches(prompts: Sequence[Sequence[int]], limits: Sequence[int], batch: int) -> list[list[int]]:
    """Indices of the prompts that anything is to be written for, those of similar length together.

    Raises `ValueError` for an empty prompt.
    """
    if not all(prompts):
        raise ValueError("a prompt has no tokens; decoding needs at least one to start from")
    order = sorted((i for i in range(len(prompts)) if limits[i] > 0), key=lambda i: len(prompts[i]))
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def left_pad(prompts: Sequence[Sequence[int]], device: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) token ids, zeros on the left, and the (B, T) mask that hides the zeros."""
    width = max(len(prompt) for prompt in prompts)
    tokens = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
