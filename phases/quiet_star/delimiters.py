"""The two tokens around a thought: added to any model and tokenizer, started from known text."""

from typing import Any

import torch

from phases.errors import CheckpointError

START, END = "<|startofthought|>", "<|endofthought|>"


def add_delimiters(model: Any, tokenizer: Any, initial: str) -> tuple[int, int]:
    """Add the tokens in place and return their ids; a model that has them keeps its own.

    Their embeddings start as the mean of those of `initial` (the paper takes an em dash, `---`). Ordinary generation
    never writes them: they are suppressed in the generation config, which plain transformers honours.
    """
    known = set(tokenizer.get_vocab())
    if not {START, END} <= known:
        tokenizer.add_special_tokens({"additional_special_tokens": [START, END]}, replace_extra_special_tokens=False)
    start, end = tokenizer.convert_tokens_to_ids([START, END])
    grown = max(start, end) >= model.get_input_embeddings().num_embeddings
    if grown:
        # Spare rows that pad other people's matrices are used as they are.
        model.resize_token_embeddings(max(start, end) + 1, mean_resizing=False)
    if grown or not {START, END} <= known:
        _start_from(model, tokenizer, initial, [start, end])
    suppressed = set(model.generation_config.suppress_tokens or []) | {start, end}
    model.generation_config.suppress_tokens = sorted(suppressed)
    return start, end


def _start_from(model: Any, tokenizer: Any, initial: str, ids: list[int]) -> None:
    pieces = tokenizer(initial, add_special_tokens=False)["input_ids"]
    if not pieces:
        raise CheckpointError(f"quiet_star.thoughts.initial={initial!r}: has no tokens in this tokenizer; give a text")
    with torch.no_grad():
        for matrix in {id(m): m for m in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
            matrix.weight[ids] = matrix.weight[pieces].mean(0)
