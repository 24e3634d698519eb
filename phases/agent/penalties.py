"""What was written is less likely to be written again.

    logits_BV = penalised(logits_BV, written, Decoding(repetition_penalty=1.1, no_repeat_ngram=3))

Only what was written counts, not the prompt: an agent has to say what it has read.
"""

from collections import Counter
from collections.abc import Sequence

import torch

from phases.agent.design import Decoding


def penalised(logits_BV: torch.Tensor, written: Sequence[Sequence[int]], decoding: Decoding) -> torch.Tensor:
    """(B, V) logits after all penalties of a design; `written` are the tokens of each row so far."""
    logits_BV = repetition(logits_BV, written, decoding.repetition_penalty)
    logits_BV = subtracted(logits_BV, written, decoding.presence_penalty, decoding.frequency_penalty)
    return without_ngrams(logits_BV, written, decoding.no_repeat_ngram)


def repetition(logits_BV: torch.Tensor, written: Sequence[Sequence[int]], penalty: float) -> torch.Tensor:
    """Logits of tokens that were written are divided by the penalty, multiplied where negative (arXiv 1909.05858)."""
    if penalty == 1.0:
        return logits_BV
    row_N, token_N, _ = _counted(written, logits_BV)
    value_N = logits_BV[row_N, token_N]
    return _replaced(logits_BV, row_N, token_N, torch.where(value_N < 0, value_N * penalty, value_N / penalty))


def subtracted(
    logits_BV: torch.Tensor, written: Sequence[Sequence[int]], presence: float, frequency: float
) -> torch.Tensor:
    """`presence` is taken off the logit of a token that was written, and `frequency` for every time that it was."""
    if presence == frequency == 0:
        return logits_BV
    row_N, token_N, count_N = _counted(written, logits_BV)
    return _replaced(logits_BV, row_N, token_N, logits_BV[row_N, token_N] - presence - frequency * count_N)


def without_ngrams(logits_BV: torch.Tensor, written: Sequence[Sequence[int]], length: int) -> torch.Tensor:
    """−∞ for tokens that would write `length` tokens in a row a second time (arXiv 1705.04304); 0: none."""
    banned = [(row, token) for row, tokens in enumerate(written) for token in ngram_ends(tokens, length)]
    if not banned:
        return logits_BV
    row_N, token_N = torch.tensor(banned, device=logits_BV.device).T
    return _replaced(logits_BV, row_N, token_N, logits_BV.new_full((len(banned),), float("-inf")))


def ngram_ends(tokens: Sequence[int], length: int) -> set[int]:
    """Tokens that have followed the last `length` − 1 tokens before."""
    if length == 0:
        return set()
    tokens, before = list(tokens), length - 1
    newest = tokens[len(tokens) - before :]
    return {tokens[i + before] for i in range(len(tokens) - before) if tokens[i : i + before] == newest}


def _counted(written: Sequence[Sequence[int]], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(N,) rows, their distinct tokens, and how often each was written."""
    found = [(row, token, count) for row, tokens in enumerate(written) for token, count in Counter(tokens).items()]
    row_N, token_N, count_N = torch.tensor(found, dtype=torch.long, device=like.device).view(-1, 3).T
    return row_N, token_N, count_N


def _replaced(
    logits_BV: torch.Tensor, row_N: torch.Tensor, token_N: torch.Tensor, value_N: torch.Tensor
) -> torch.Tensor:
    logits_BV = logits_BV.clone()
    logits_BV[row_N, token_N] = value_N
    return logits_BV
