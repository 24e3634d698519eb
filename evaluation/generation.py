"""Exact match by real greedy decoding (`phases.decoding`).

    answers = exact_match(model, tokenizer, data.items("test", "reasoning"))

Every item may write as many tokens as the longest gold completion of the set needs, plus a margin. A thinking model
thinks before each token that it writes; which thoughts it draws depends on who shares the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.thinking import at_last_position
from phases.decoding import decode, encode, likeliest, stop_ids, token_limit
from phases.tasks.item import Item, extract_answer, render_prompt


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


def greedy(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: set[int], batch: int = 64
) -> list[list[int]]:
    """The greedy continuation of each prompt, the stop token included. Raises `ValueError` for an empty prompt."""
    with at_last_position(model):
        return decode(model, prompts, [max_new_tokens] * len(prompts), stop, likeliest, batch)
