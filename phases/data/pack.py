"""Text and tasks to rows of T + 1 tokens.

Text is one long line of passages with end-of-text between them, cut so that a row starts with the token that the row
before ended with: every token is predicted exactly once. Task items are packed whole: an item never crosses rows, and
a row's rest is padding of weight 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from phases.tasks.item import Item, render_completion, render_prompt

PROMPT, ANSWER, PADDING = 0, 1, 2
"""Values of the mask: prompt tokens have `prompt_weight`, answers (and running text) 1, padding 0."""


@dataclass(frozen=True)
class Packed:
    """Rows of one stream."""

    tokens_NT: npt.NDArray[Any]
    """(N, T+1) token ids."""
    mask_NT: npt.NDArray[np.uint8]
    """(N, T+1) PROMPT, ANSWER or PADDING."""
    bytes_N: npt.NDArray[np.int64]
    """(N,) UTF-8 bytes of the T predicted tokens; end-of-text has none."""
    counts: npt.NDArray[np.int64]
    """(inputs,) tokens of each text or item; 0 for an item that does not fit a row."""


def token_type(vocabulary: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest unsigned integer that holds every id."""
    return np.uint16 if vocabulary <= 2**16 else np.uint32


def byte_lengths(text: str, ends: Sequence[int]) -> npt.NDArray[np.int64]:
    """Bytes of UTF-8 that each token stands for, given the character at which each ends.

    A character that several tokens share counts for the first; what lies between two tokens counts for the later one,
    what follows the last for the last. So the sum is the text's length in bytes, whatever the tokenizer.
    """
    if not ends:
        return np.zeros(0, dtype=np.int64)
    if text.isascii():
        at = np.arange(len(text) + 1, dtype=np.int64)
    else:
        at = np.concatenate([[0], np.cumsum([len(c.encode()) for c in text])])
    limits = np.maximum.accumulate(np.array(ends, dtype=np.int64))
    limits[-1] = len(text)
    return np.diff(at[limits], prepend=0)


def pack_text(tokenizer: Any, texts: Sequence[str], block: int) -> Packed:
    """Running text as rows; the rest that does not fill a row is left out. (0, T+1) when there is less than one."""
    kind = token_type(len(tokenizer))
    ids: list[npt.NDArray[Any]] = []
    sizes: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(texts), 256):
        part = list(texts[start : start + 256])
        # What looks like a control token in somebody's text is text.
        encoded = tokenizer(
            part, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True, verbose=False
        )
        for text, tokens, offsets in zip(part, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            ids.append(np.array([tokenizer.eos_token_id, *tokens], dtype=kind))
            sizes.append(np.concatenate([[0], byte_lengths(text, [end for _, end in offsets])]))
    line = np.concatenate(ids) if ids else np.zeros(0, dtype=kind)
    size = np.concatenate(sizes) if sizes else np.zeros(0, dtype=np.int64)
    rows = max(0, (len(line) - 1) // block)
    index = np.arange(rows)[:, None] * block + np.arange(block + 1)
    tokens_NT = line[index] if rows else np.zeros((0, block + 1), dtype=kind)
    mask = np.full(tokens_NT.shape, ANSWER, dtype=np.uint8)
    counts = np.array([len(part) - 1 for part in ids], dtype=np.int64)
    return Packed(tokens_NT, mask, size[index[:, 1:]].sum(1) if rows else np.zeros(0, dtype=np.int64), counts)


def pack_items(tokenizer: Any, items: Sequence[Item], block: int) -> Packed:
    """Items in their order, as many whole ones to a row as fit; an item longer than a row is left out (count 0)."""
    kind, pad = token_type(len(tokenizer)), tokenizer.eos_token_id
    prompts = _encode(tokenizer, [render_prompt(tokenizer, item.prompt) for item in items])
    answers = _encode(tokenizer, [render_completion(tokenizer, item) for item in items])
    rows: list[list[int]] = []
    masks: list[list[int]] = []
    counts = np.zeros(len(items), dtype=np.int64)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        size = len(prompt) + len(answer)
        if size > block + 1:
            continue
        counts[i] = size
        if not rows or len(rows[-1]) + size > block + 1:
            rows.append([])
            masks.append([])
        rows[-1] += prompt + answer
        masks[-1] += [PROMPT] * len(prompt) + [ANSWER] * len(answer)
    tokens_NT = np.full((len(rows), block + 1), pad, dtype=kind)
    mask_NT = np.full((len(rows), block + 1), PADDING, dtype=np.uint8)
    for i, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        tokens_NT[i, : len(row)], mask_NT[i, : len(row)] = row, mask
    return Packed(tokens_NT, mask_NT, np.zeros(len(rows), dtype=np.int64), counts)


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return list(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]) if texts else []
