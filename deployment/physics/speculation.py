"""Speculative decoding: how many tokens a step yields when a draft proposes k and the model checks them at once.

With acceptance probability α, independent from token to token, a step of k drafts yields

    (1 − α^(k+1)) / (1 − α)

tokens in expectation, k + 1 for α = 1 (Leviathan et al. 2023, "Fast Inference from Transformers via Speculative
Decoding", arXiv 2211.17192, equation 1). The output's distribution does not change; only the time does.
"""

from phases.errors import InputError

MOST_DRAFTS = 32
"""More drafts than any engine takes: where the search for the best number ends."""


def tokens_per_step(acceptance: float, draft_tokens: int) -> float:
    """Expected tokens of one step; 1 without drafts. Raises InputError outside 0 ≤ α ≤ 1, k ≥ 0."""
    _check(acceptance, draft_tokens)
    if acceptance == 1.0:
        return draft_tokens + 1.0
    return sum(acceptance**i for i in range(draft_tokens + 1))  # the closed form loses digits near 1


def speedup(acceptance: float, draft_tokens: int, draft_cost: float) -> float:
    """Times faster than without drafts, when one draft token costs `draft_cost` of the model's own step.

    Leviathan et al., theorem 3.8: it holds while checking k + 1 tokens costs no more than one, that is while decoding
    is limited by memory. Below 1: drafts slow it down.
    """
    if draft_cost < 0:
        raise InputError(f"draft_cost = {draft_cost}: a draft costs 0 or more of a step")
    return tokens_per_step(acceptance, draft_tokens) / (draft_tokens * draft_cost + 1)


def best_draft_tokens(acceptance: float, draft_cost: float) -> int:
    """The number of drafts that decodes fastest, 0 where none helps (α ≤ cost); the smallest of equals."""
    return max(range(MOST_DRAFTS + 1), key=lambda k: (speedup(acceptance, k, draft_cost), -k))


def _check(acceptance: float, draft_tokens: int) -> None:
    if not 0 <= acceptance <= 1:
        raise InputError(f"acceptance = {acceptance}: a probability lies between 0 and 1")
    if draft_tokens < 0:
        raise InputError(f"draft_tokens = {draft_tokens}: a step has 0 drafts or more")
