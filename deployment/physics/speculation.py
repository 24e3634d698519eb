"""Speculative decoding: how many tokens a step yields when a draft proposes k and the model checks them at once.

With acceptance probability α, independent from token to token, a step of k drafts yields

    (1 − α^(k+1)) / (1 − α)

tokens in expectation, k + 1 for α = 1 (Leviathan et al. 2023, "Fast Inference from Transformers via Speculative
Decoding", arXiv 2211.17192, equation 1). The output's distribution does not change; only the time does.
"""

from phases.errors import InputError


def tokens_per_step(acceptance: float, draft_tokens: int) -> float:
    """Expected tokens of one step; 1 without drafts. Raises InputError outside 0 ≤ α ≤ 1, k ≥ 0."""
    _check(acceptance, draft_tokens)
    if acceptance == 1.0:
        return draft_tokens + 1.0
    return sum(acceptance**i for i in range(draft_tokens + 1))  # the closed form loses digits near 1


def _check(acceptance: float, draft_tokens: int) -> None:
    if not 0 <= acceptance <= 1:
        raise InputError(f"acceptance = {acceptance}: a probability lies between 0 and 1")
    if draft_tokens < 0:
        raise InputError(f"draft_tokens = {draft_tokens}: a step has 0 drafts or more")
